package boinc

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// The job script is the one file that a job of the wrapper application brings: a
// POSIX shell runs it on the host, in a directory of the job's own. It may count on
// nothing else but what POSIX and every Linux system has.

// The files that the script leaves behind, by their places in the output template.
const (
	outFile    = "portolan.out"
	errFile    = "portolan.err"
	statusFile = "portolan.status"
	scriptFile = "job.sh"
)

var outputs = []string{outFile, errFile, statusFile}

// word is a shell word: a text, after the value of a variable of the script's: here is
// the directory that the host gave, me the host's account.
type word struct {
	variable string
	text     string
}

// quote writes text as one word of a POSIX shell: within single quotes nothing has a
// meaning but the quote itself.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (w word) String() string {
	if w.variable == "" {
		return quote(w.text)
	}
	if w.text == "" {
		return `"$` + w.variable + `"`
	}
	return `"$` + w.variable + `"` + quote(w.text)
}

// script is what a job script is made of.
type script struct {
	executable  *word // nil: nothing is run
	arguments   []word
	environment map[string]word
	input       *word
	output      *word
	errors      *word
	directory   *word
	limits      map[string]uint64 // of ulimit
	wallTime    int64             // seconds; 0 is none
	maxOutput   int64
	times       bool // write the times down, which no two instances share
}

// rlimits are the POSIX limits that a shell can set, in the order of setting: its
// letter and the bytes or things in its unit.
var rlimits = []struct {
	element string
	letter  string
	unit    uint64
}{
	{"CoreDumpLimit", "c", 512},
	{"LockedMemoryLimit", "l", 1024},
	{"DataSegmentLimit", "d", 1024},
	{"StackSizeLimit", "s", 1024},
	{"OpenDescriptorsLimit", "n", 1},
	{"CPUTimeLimit", "t", 1},
	{"FileSizeLimit", "f", 512},
	{"VirtualMemoryLimit", "v", 1024},
}

// unlimited is what a shell can't count.
const unlimited = 1 << 50

// limit notes a limit; one that nothing can reach is none.
func (s *script) limit(element string, n *big.Int) {
	if n.IsUint64() && n.Uint64() < unlimited {
		if s.limits == nil {
			s.limits = map[string]uint64{}
		}
		s.limits[element] = n.Uint64()
	}
}

// prologue sets the stage. Nothing of it depends on the job but a few numbers. A job
// that is stopped and started again begins anew, with empty outputs.
const prologue = `#!/bin/sh
# Made by a Portolan gateway: runs one job and writes down how it ended.
here=$(pwd)
me=${USER:-${LOGNAME:-$(id -un 2> /dev/null)}}
umask 022
[ ! -e work ] || rm -rf work tmp scratch
mkdir work tmp scratch
: > portolan.out
: > portolan.err
: > portolan.note
: > portolan.status
exec 2>> portolan.note
cd work
say() { printf '%s\n' "$1" >> "$here/portolan.status"; }
leave() { [ $times = 0 ] || say "ended=$(date +%s)"; say end; exit 0; }
refuse() { say "notrun=$1"; leave; }
`

// find looks an executable up as execvp does, and says why it can't run. Shells and
// execvp would run a text without a first line of #! by some shell: here it is no
// program.
const find = `case $exe in
*/*) found=$exe ;;
*)
  found=
  IFS=:
  set -f
  for dir in $path; do
    [ -n "$dir" ] || dir=.
    if [ -f "$dir/$exe" ] && [ -x "$dir/$exe" ]; then found=$dir/$exe; break; fi
  done
  set +f
  unset IFS
  [ -n "$found" ] || refuse path ;;
esac
[ -e "$found" ] || refuse missing
[ ! -d "$found" ] || refuse directory
[ -x "$found" ] || refuse mode
case $(head -c 4 "$found" 2> /dev/null) in
?ELF) ;;
'#!'*)
  read -r line < "$found"
  line=${line#??}
  set -f
  set -- $line
  set +f
  [ -z "$1" ] || [ -x "$1" ] || refuse interpreter ;;
*) [ ! -r "$found" ] || [ "$(uname -s)" != Linux ] || refuse format ;;
esac
`

// String writes the script.
func (s *script) String() string {
	var b strings.Builder
	b.WriteString(prologue)
	fmt.Fprintf(&b, "times=%d\n", map[bool]int{true: 1}[s.times])
	b.WriteString("say portolan=1\nbegan=0\n")
	if s.times || s.wallTime > 0 {
		b.WriteString("began=$(date +%s)\n")
	}
	if s.times {
		b.WriteString("say started=$began\n")
	}
	if s.executable == nil {
		b.WriteString("say exit=0\nleave\n")
		return b.String()
	}
	if s.directory != nil {
		fmt.Fprintf(&b, "dir=%s\n", *s.directory)
		if s.directory.variable != "" || !strings.HasPrefix(s.directory.text, "/") {
			b.WriteString("mkdir -p -- \"$dir\"\n")
		}
		b.WriteString("[ -e \"$dir\" ] || refuse nodir\n[ -d \"$dir\" ] || refuse dirfile\ncd -- \"$dir\" || refuse dirclosed\n")
	}
	fmt.Fprintf(&b, "exe=%s\npath=%s\n", *s.executable, s.environment["PATH"])
	b.WriteString(find)
	in := "/dev/null"
	if s.input != nil {
		in = `"$in"`
		fmt.Fprintf(&b, "in=%s\n[ -e \"$in\" ] || refuse noinput\n[ ! -d \"$in\" ] || refuse inputdir\n[ -r \"$in\" ] || refuse inputclosed\n", *s.input)
	}
	b.WriteString("out=$here/portolan.out\nerr=$here/portolan.err\n")
	target := func(name string, w *word) {
		if w != nil {
			fmt.Fprintf(&b, "%s=%s\n[ ! -d \"$%s\" ] || refuse %sdir\n( : > \"$%s\" ) || refuse %sclosed\n", name, *w, name, name, name, name)
		}
	}
	target("out", s.output)
	target("err", s.errors)
	one := s.output != nil && s.errors != nil
	b.WriteString(": > \"$here/portolan.note\"\n")
	run := func(streams string) {
		b.WriteString("(\n")
		for _, l := range rlimits {
			n, ok := s.limits[l.element]
			switch {
			case !ok:
			case l.letter == "t": // where both are one, the kernel kills without a word
				fmt.Fprintf(&b, "  ulimit -S -t %d 2> /dev/null\n  ulimit -H -t %d 2> /dev/null\n", n, n+5)
			default:
				fmt.Fprintf(&b, "  ulimit -%s %d 2> /dev/null\n", l.letter, n/l.unit)
			}
		}
		b.WriteString("  exec ")
		if s.wallTime > 0 {
			b.WriteString("$limit ")
		}
		b.WriteString("env -i")
		for _, name := range slices.Sorted(maps.Keys(s.environment)) {
			if w := s.environment[name]; w.variable != "" {
				fmt.Fprintf(&b, " %s%s", quote(name+"="), w)
			} else {
				fmt.Fprintf(&b, " %s", quote(name+"="+w.text))
			}
		}
		// What has a '=' in it env would take for a variable.
		if strings.Contains(s.executable.text, "=") {
			b.WriteString(" nice -n 0")
		}
		b.WriteString(` "$exe"`)
		for _, a := range s.arguments {
			b.WriteString(" " + a.String())
		}
		fmt.Fprintf(&b, "\n) < %s %s\nrc=$?\n", in, streams)
	}
	if s.wallTime > 0 {
		fmt.Fprintf(&b, "limit=\nif command -v timeout > /dev/null; then limit='timeout -k 5 %d'; fi\n", s.wallTime)
	}
	if one {
		b.WriteString("if [ \"$out\" -ef \"$err\" ]; then\n")
		run(`> "$out" 2>&1`)
		b.WriteString("else\n")
		run(`> "$out" 2> "$err"`)
		b.WriteString("fi\n")
	} else {
		run(`> "$out" 2> "$err"`)
	}
	s.epilogue(&b)
	return b.String()
}

// epilogue writes down how the program ended. A shell shows the end by signal 9 as
// 137, as it does a program that exits with 137; but of a signal it also writes a
// line to its own standard error.
func (s *script) epilogue(b *strings.Builder) {
	if s.wallTime > 0 {
		b.WriteString("took=$(( $(date +%s) - began ))\n")
	}
	if s.output != nil {
		b.WriteString("[ ! -f \"$out\" ] || cat < \"$out\" > \"$here/portolan.out\"\n")
	}
	if s.errors != nil {
		b.WriteString("[ ! -f \"$err\" ] || cat < \"$err\" > \"$here/portolan.err\"\n")
	}
	b.WriteString("cd \"$here\"\n")
	for _, f := range []string{outFile, errFile} {
		fmt.Fprintf(b, "if [ -s %s ] && [ \"$(wc -c < %s)\" -gt %d ]; then head -c %d %s > portolan.cut; mv -f portolan.cut %s; say truncated=%s; fi\n", f, f, s.maxOutput, s.maxOutput, f, f, f)
	}
	if s.wallTime > 0 {
		fmt.Fprintf(b, "if [ -n \"$limit\" ] && [ $took -ge %d ] && { [ $rc = 124 ] || [ $rc = 137 ]; }; then say limit=WallTimeLimit; leave; fi\n", s.wallTime)
	}
	b.WriteString("signal=\nif [ $rc -gt 128 ] && [ -s portolan.note ]; then signal=$(( rc - 128 )); fi\ncase $rc in 130|141) signal=$(( rc - 128 )) ;; esac\n")
	if _, ok := s.limits["CPUTimeLimit"]; ok {
		b.WriteString("if [ \"$signal\" = 24 ]; then say limit=CPUTimeLimit; leave; fi\n")
	}
	if _, ok := s.limits["FileSizeLimit"]; ok {
		b.WriteString("if [ \"$signal\" = 25 ]; then say limit=FileSizeLimit; leave; fi\n")
	}
	b.WriteString("if [ -n \"$signal\" ]; then say signal=$signal; else say exit=$rc; fi\nleave\n")
}

// ending is what a status file says.
type ending struct {
	started, ended int64 // of the host's clock; 0 is not told
	exit           int
	signal         int
	limit          string
	notRun         string
	truncated      []string
	whole          bool
}

// maxStatus bounds a status file: it is a stranger's.
const maxStatus = 4 << 10

// readStatus reads a status file.
func readStatus(data []byte) (ending, bool) {
	e := ending{exit: -1}
	if len(data) > maxStatus {
		return e, false
	}
	version := ""
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		n, err := strconv.ParseInt(value, 10, 64)
		number := err == nil && n >= 0
		switch key {
		case "portolan":
			version = value
		case "started", "ended":
			if !number {
				continue // a host without such a clock
			}
			if key == "started" {
				e.started = n
			} else {
				e.ended = n
			}
		case "exit":
			if !number || n > 255 {
				return e, false
			}
			e.exit = int(n)
		case "signal":
			if !number || n < 1 || n > 127 {
				return e, false
			}
			e.signal = int(n)
		case "limit":
			e.limit = value
		case "notrun":
			e.notRun = value
		case "truncated":
			e.truncated = append(e.truncated, value)
		case "end":
			e.whole = true
		}
	}
	ways := 0
	for _, is := range []bool{e.exit >= 0, e.signal > 0, e.limit != "", e.notRun != ""} {
		if is {
			ways++
		}
	}
	return e, version == "1" && e.whole && ways == 1
}
