package jsdl

import (
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/portolan-project/portolan/internal/fail"
)

// Name gives the job's name, or "".
func (j *JobDefinition) Name() string {
	if id := j.Description.Identification; id != nil && id.JobName != nil {
		return *id.JobName
	}
	return ""
}

// ByName gives the ApplicationName of a job that names no Executable: its site must
// have a catalogue in which to look it up. It is "" for every other job.
func (j *JobDefinition) ByName() string {
	a := j.Description.Application
	if a == nil || a.Name == nil ||
		a.POSIX != nil && a.POSIX.Executable != nil || a.HPC != nil && a.HPC.Executable != nil || a.SPMD != nil && a.SPMD.Executable != nil {
		return ""
	}
	return trim(*a.Name)
}

// Program gives what the job runs, of whichever application it has; the POSIX one
// where it has both. Of several variables with one name the last holds. A job
// without application gives the zero Program, which runs nothing.
func (j *JobDefinition) Program() Program {
	a := j.Description.Application
	switch {
	case a == nil:
		return Program{}
	case a.POSIX != nil:
		p := a.POSIX
		out := Program{
			Arguments: p.Arguments, Input: p.Input, Output: p.Output, Error: p.Error, WorkingDirectory: p.WorkingDirectory,
			Environment: lastOfEach(p.Environment), Limits: p.Limits, UserName: p.UserName, GroupName: p.GroupName,
		}
		if p.Executable != nil {
			out.Executable = *p.Executable
		}
		return out
	case a.HPC != nil:
		h := a.HPC
		out := Program{
			Input: plain(h.Input), Output: plain(h.Output), Error: plain(h.Error), WorkingDirectory: plain(h.WorkingDirectory),
			Environment: lastOfEach(h.Environment), UserName: h.UserName,
		}
		if h.Executable != nil {
			out.Executable.Value = *h.Executable
		}
		for _, s := range h.Arguments {
			out.Arguments = append(out.Arguments, Text{Value: s})
		}
		return out
	case a.SPMD != nil:
		return a.SPMD.program()
	}
	return Program{}
}

func plain(s *string) *Text {
	if s == nil {
		return nil
	}
	return &Text{Value: *s}
}

// lastOfEach leaves out every variable that a later one replaces.
func lastOfEach(vars []EnvironmentVariable) []EnvironmentVariable {
	if len(vars) < 2 {
		return vars
	}
	last := make(map[string]int, len(vars))
	for i := range vars {
		last[vars[i].Name] = i
	}
	if len(last) == len(vars) {
		return vars
	}
	var out []EnvironmentVariable
	for i := range vars {
		if last[vars[i].Name] == i {
			out = append(out, vars[i])
		}
	}
	return out
}

// FileSystem gives the declared file system of that name, or nil. A well-known one
// need not be declared.
func (j *JobDefinition) FileSystem(name string) *FileSystem {
	if r := j.Description.Resources; r != nil {
		for i := range r.FileSystems {
			if r.FileSystems[i].Name == name {
				return &r.FileSystems[i]
			}
		}
	}
	return nil
}

// ResolveText gives the text, or the path that it names: below a file system the
// text is put after the mount point, and an empty text is the mount point itself
// (JSDL 1.0 §8, filesystemName). mount gives where a file system is; its answer is
// asked only for texts with one. An unknown file system is fail.Unsupported, and a
// path that would leave it fail.Invalid.
func ResolveText(t Text, mount func(name string) (point string, ok bool)) (string, error) {
	if t.FileSystem == "" {
		return t.Value, nil
	}
	point, ok := mount(t.FileSystem)
	if !ok {
		return "", fail.Errorf("jsdl.ResolveText", fail.Unsupported, t.FileSystem,
			"the file system %s is not to be had here; name one that the site has", quote(t.FileSystem))
	}
	if slices.Contains(strings.Split(t.Value, "/"), "..") {
		return "", fail.Errorf("jsdl.ResolveText", fail.Invalid, t.FileSystem,
			"the path %s leads out of the file system %s; write it without \"..\"", quote(t.Value), quote(t.FileSystem))
	}
	if t.Value == "" {
		return point, nil
	}
	return strings.TrimSuffix(point, "/") + "/" + strings.TrimLeft(t.Value, "/"), nil
}

// Command is a command line to be made into a job.
type Command struct {
	Name             string   // of the job; may be empty
	Argv             []string // program and arguments
	Environment      []EnvironmentVariable
	Input            string // "" for none
	Output           string
	Error            string
	WorkingDirectory string
	WallTime         int64    // seconds; 0 for no limit
	CPUs             int64    // TotalCPUCount; 0 for no wish
	Memory           int64    // IndividualPhysicalMemory, at least, in bytes; 0 for no wish
	CandidateHosts   []string // where it must run; empty for anywhere
}

// Definition makes the job that runs the command. It is a POSIXApplication, but
// for arguments with tabs or line ends an HPCProfileApplication: the POSIX schema
// turns those into blanks. What no document can express is fail.Invalid.
func (c Command) Definition() (*JobDefinition, error) {
	const op = "jsdl.Command"
	if len(c.Argv) == 0 || trim(c.Argv[0]) == "" {
		return nil, fail.Errorf(op, fail.Invalid, "", "there is no program to run; name one")
	}
	if c.Argv[0] != trim(c.Argv[0]) {
		return nil, fail.Errorf(op, fail.Invalid, c.Argv[0], "the program %s has white space around its name, which JSDL cannot express", quote(c.Argv[0]))
	}
	texts := append(slices.Clone(c.Argv), c.Name, c.Input, c.Output, c.Error, c.WorkingDirectory)
	texts = append(texts, c.CandidateHosts...)
	for _, v := range c.Environment {
		if n, ok := parseNCName(v.Name); !ok || n != v.Name {
			return nil, fail.Errorf(op, fail.Invalid, v.Name, "%s cannot be the name of a variable; %s", quote(v.Name), wantNCName)
		}
		texts = append(texts, v.Value)
	}
	for _, s := range texts {
		if !xmlText(s) {
			return nil, fail.Errorf(op, fail.Invalid, "", "%s has a character that XML cannot carry; remove it", quote(s))
		}
	}

	j := new(JobDefinition)
	if c.Name != "" {
		j.Description.Identification = &JobIdentification{JobName: &c.Name}
	}
	if slices.ContainsFunc(c.Argv[1:], func(s string) bool { return s != normalize(s) }) {
		if c.WallTime > 0 {
			return nil, fail.Errorf(op, fail.Invalid, "",
				"an argument has a tab or a line end, which JSDL cannot express together with a time limit; put it in a script or leave one out")
		}
		j.Description.Application = &Application{HPC: &HPCProfileApplication{
			Executable: &c.Argv[0], Arguments: c.Argv[1:], Environment: c.Environment,
			Input: given(c.Input), Output: given(c.Output), Error: given(c.Error), WorkingDirectory: given(c.WorkingDirectory),
		}}
	} else {
		p := &POSIXApplication{
			Executable: &Text{Value: c.Argv[0]}, Environment: c.Environment,
			Input: plain(given(c.Input)), Output: plain(given(c.Output)), Error: plain(given(c.Error)), WorkingDirectory: plain(given(c.WorkingDirectory)),
		}
		for _, s := range c.Argv[1:] {
			p.Arguments = append(p.Arguments, Text{Value: s})
		}
		if c.WallTime > 0 {
			p.Limits.WallTime = big.NewInt(c.WallTime)
		}
		j.Description.Application = &Application{POSIX: p}
	}
	if c.CPUs > 0 || c.Memory > 0 || len(c.CandidateHosts) > 0 {
		r := &Resources{CandidateHosts: c.CandidateHosts}
		if c.Memory > 0 {
			r.IndividualPhysicalMemory = &RangeValue{Lower: &Bound{Value: float64(c.Memory)}}
		}
		if c.CPUs > 0 {
			r.TotalCPUCount = &RangeValue{Exact: []Exact{{Value: float64(c.CPUs)}}}
		}
		j.Description.Resources = r
	}
	return j, nil
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// xmlText reports whether XML 1.0 has all characters of s (§2.2).
func xmlText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return false
		}
	}
	return true
}
