package adaptertest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/jsdl"
)

func posix(d *jsdl.JobDefinition) *jsdl.POSIXApplication { return d.Description.Application.POSIX }

func text(s string) *jsdl.Text { return &jsdl.Text{Value: s} }

// shell makes a job of a shell script with arguments "$1"….
func shell(script string, arguments ...string) *jsdl.JobDefinition {
	return Command("/bin/sh", append([]string{"-c", script, "sh"}, arguments...)...)
}

// What the gateway was started with is no business of a job.
func testCleanEnvironment(b *bench) {
	out, _ := b.exits(Command("/usr/bin/env"), 0)
	if strings.Contains(out, secret) {
		b.Errorf("the gateway's environment reaches the job:\n%s", out)
	}
	for _, name := range []string{"PATH", "HOME", "USER", "LOGNAME"} {
		if !strings.Contains("\n"+out, "\n"+name+"=") {
			b.Errorf("%s is missing from the job's environment:\n%s", name, out)
		}
	}
	d := Command("/usr/bin/env")
	posix(d).Environment = []jsdl.EnvironmentVariable{{Name: "PATH", Text: jsdl.Text{Value: "/mine"}}, {Name: "HOME", Text: jsdl.Text{}}}
	out, _ = b.exits(d, 0)
	if !strings.Contains("\n"+out, "\nPATH=/mine\n") || !strings.Contains("\n"+out, "\nHOME=\n") {
		b.Errorf("the job's own PATH and HOME are not obeyed:\n%s", out)
	}
}

func script(b *bench, path, content string, mode os.FileMode) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		b.Fatal(err)
	}
}

// An executable is looked up as the system does (GFD.56 §8.1.2).
func testLookup(b *bench) {
	dir := b.TempDir()
	script(b, filepath.Join(dir, "bin", "tool $(x)"), "#!/bin/sh\necho found\n", 0o755)
	script(b, filepath.Join(dir, "other", "tool $(x)"), "#!/bin/sh\necho wrong\n", 0o644) // first in PATH, not executable
	for _, c := range []struct{ name, exe, path, wd string }{
		{"absolute", filepath.Join(dir, "bin", "tool $(x)"), "", ""},
		{"below the working directory", "bin/tool $(x)", "", dir},
		{"in the working directory", "./tool $(x)", "", filepath.Join(dir, "bin")},
		{"in the job's PATH", "tool $(x)", filepath.Join(dir, "other") + ":" + filepath.Join(dir, "bin"), ""},
		{"in a relative PATH", "tool $(x)", "bin", dir},
	} {
		d := Command(c.exe)
		if c.path != "" {
			posix(d).Environment = []jsdl.EnvironmentVariable{{Name: "PATH", Text: jsdl.Text{Value: c.path}}}
		}
		if c.wd != "" {
			posix(d).WorkingDirectory = text(c.wd)
		}
		if out, _ := b.exits(d, 0); out != "found\n" {
			b.Errorf("an executable %s: %q", c.name, out)
		}
	}
	b.exits(Command("true"), 0) // in the default PATH
	b.stopped(Command("tool $(x)"), true, "tool $(x)", "PATH")
}

// Every failure to start is a sentence; no shell is tried instead.
func testNotRunnable(b *bench) {
	dir := b.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	script(b, path("plain"), "#!/bin/sh\necho no\n", 0o644)
	script(b, path("noformat"), "echo no\n", 0o755)
	script(b, path("nointerpreter"), "#!/no/such/interpreter\n", 0o755)
	script(b, path("empty"), "", 0o755)
	b.stopped(Command(path("missing")), true, path("missing"), "does not exist")
	b.stopped(Command(path("plain")), true, path("plain"), "not executable")
	b.stopped(Command(path("noformat")), true, path("noformat"), "#!")
	b.stopped(Command(path("empty")), true, path("empty"))
	b.stopped(Command(path("nointerpreter")), true, path("nointerpreter"), "interpreter")
	b.stopped(Command(dir), true, dir, "directory")
	b.stopped(Command(path("plain")+"/x"), true, path("plain")+"/x")
	b.stopped(Command("/bin/echo a b"), true, "/bin/echo a b") // one file name, never a command line
	b.stopped(Command("/bin/"+strings.Repeat("x", 300)), true)
}

func testHPC(b *bench) {
	exe, out, errs, wd := "/bin/sh", "o u t", "err", b.TempDir()
	d := &jsdl.JobDefinition{Description: jsdl.JobDescription{Application: &jsdl.Application{HPC: &jsdl.HPCProfileApplication{
		Executable: &exe, Arguments: []string{"-c", `echo "$A" "$1"; echo e >&2; exit 5`, "sh", "x  y"}, Output: &out, Error: &errs, WorkingDirectory: &wd,
		Environment: []jsdl.EnvironmentVariable{{Name: "A", Text: jsdl.Text{Value: "a*"}}},
	}}}}
	if stdout, stderr := b.exits(d, 5); stdout != "a* x  y\n" || stderr != "e\n" {
		b.Errorf("an HPC Profile job gives %q and %q", stdout, stderr)
	}
	b.content(filepath.Join(wd, out), "a* x  y\n")
}

func (b *bench) content(path, want string) {
	b.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		b.Errorf("%s holds %q (%v), want %q", path, got, err, want)
	}
}

func testWorkingDirectory(b *bench) {
	// Absent: a fresh, empty, writable directory for each job.
	probe := shell(`pwd; ls -A; : > made-here`)
	one, _ := b.exits(probe, 0)
	two, _ := b.exits(probe, 0)
	if one == two || strings.Count(one, "\n") != 1 || !filepath.IsAbs(one) {
		b.Errorf("two jobs without a working directory worked in %q and %q", one, two)
	}
	dir, err := filepath.EvalSymlinks(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(dir, "given")
	if err := os.Mkdir(path, 0o777); err != nil {
		b.Fatal(err)
	}
	open(b, path)
	given := shell(`pwd; : > here`)
	posix(given).WorkingDirectory = text(path)
	if out, _ := b.exits(given, 0); out != path+"\n" {
		b.Errorf("the working directory is %q, want %q", out, path)
	}
	b.content(filepath.Join(path, "here"), "")
	// Relative: below the job's directory, made when missing.
	d := shell(`pwd; : > here`)
	posix(d).WorkingDirectory = text("sub/dir")
	if out, _ := b.exits(d, 0); !strings.HasSuffix(out, "/sub/dir\n") {
		b.Errorf("a relative working directory is %q", out)
	}
}

func testBadWorkingDirectory(b *bench) {
	dir := b.TempDir()
	d := shell(`exit 0`)
	posix(d).WorkingDirectory = text(filepath.Join(dir, "missing"))
	b.stopped(d, true, filepath.Join(dir, "missing"), "WorkingDirectory")
	script(b, filepath.Join(dir, "file"), "", 0o644)
	posix(d).WorkingDirectory = text(filepath.Join(dir, "file"))
	b.stopped(d, true, filepath.Join(dir, "file"), "WorkingDirectory", "not a directory")
	posix(d).WorkingDirectory = text("../../outside")
	b.refused(d, "WorkingDirectory")
	if os.Getuid() != 0 { // no directory is closed to root
		shut := filepath.Join(dir, "shut")
		if err := os.Mkdir(shut, 0); err != nil {
			b.Fatal(err)
		}
		posix(d).WorkingDirectory = text(shut)
		b.stopped(d, true, shut, "WorkingDirectory")
	}
}

// GFD.56 §8.1.2: with filesystemName the text is a path below the mount point.
func testFileSystems(b *bench) {
	dir := b.TempDir()
	script(b, filepath.Join(dir, "tool"), "#!/bin/sh\nprintf '%s\\n' \"$@\" \"$V\" \"$TMPDIR\"; cat\n", 0o755)
	script(b, filepath.Join(dir, "in"), "input\n", 0o644)
	d := Command("tool")
	d.Description.Resources = &jsdl.Resources{FileSystems: []jsdl.FileSystem{{Name: "data", MountPoint: &dir}}}
	p := posix(d)
	p.Executable = &jsdl.Text{Value: "tool", FileSystem: "data"}
	p.Arguments = []jsdl.Text{{Value: "x", FileSystem: "data"}, {Value: "", FileSystem: "data"}, {Value: "/etc", FileSystem: "ROOT"}}
	p.Environment = []jsdl.EnvironmentVariable{
		{Name: "V", Text: jsdl.Text{Value: "v", FileSystem: "data"}}, {Name: "TMPDIR", Text: jsdl.Text{FileSystem: "TMP"}},
	}
	p.Input = &jsdl.Text{Value: "in", FileSystem: "data"}
	p.Output = &jsdl.Text{Value: "out", FileSystem: "data"}
	p.WorkingDirectory = &jsdl.Text{FileSystem: "SCRATCH"}
	out, _ := b.exits(d, 0)
	lines := strings.Split(out, "\n")
	if len(lines) != 7 || lines[0] != dir+"/x" || lines[1] != dir || lines[2] != "/etc" || lines[3] != dir+"/v" || !filepath.IsAbs(lines[4]) || lines[5] != "input" {
		b.Errorf("paths below file systems are %q", lines)
	}
	b.content(filepath.Join(dir, "out"), out)

	gone := filepath.Join(dir, "gone")
	d = Command("/bin/true")
	d.Description.Resources = &jsdl.Resources{FileSystems: []jsdl.FileSystem{{Name: "data", MountPoint: &gone}}}
	b.refused(d, "FileSystem", "data", gone)
	d = Command("/bin/true")
	posix(d).Input = &jsdl.Text{Value: "x", FileSystem: "undeclared"}
	b.refused(d, "undeclared")
}

func testStdin(b *bench) {
	dir := b.TempDir()
	path := filepath.Join(dir, "in put $(x)")
	script(b, path, "from a file", 0o644)
	d := Command("/bin/cat")
	posix(d).Input = text(path)
	if out, _ := b.exits(d, 0); out != "from a file" {
		b.Errorf("cat of a file gives %q", out)
	}
	d = Command("/bin/cat")
	posix(d).Input, posix(d).WorkingDirectory = text("in put $(x)"), text(dir)
	if out, _ := b.exits(d, 0); out != "from a file" {
		b.Errorf("cat of a file in the working directory gives %q", out)
	}
	if out, _ := b.exits(Command("/bin/cat"), 0); out != "" {
		b.Errorf("standard input without Input is %q, want empty", out)
	}
}

func testFiles(b *bench) {
	dir := b.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o777); err != nil {
		b.Fatal(err)
	}
	open(b, filepath.Join(dir, "sub"))
	script(b, filepath.Join(dir, "sub", "o ut"), "a longer old content", 0o666)
	d := shell(`echo out; echo err >&2`)
	posix(d).Output, posix(d).Error, posix(d).WorkingDirectory = text("sub/o ut"), text(filepath.Join(dir, "日本 $(e)")), text(dir)
	if out, errs := b.exits(d, 0); out != "out\n" || errs != "err\n" {
		b.Errorf("Output reads %q and %q", out, errs)
	}
	b.content(filepath.Join(dir, "sub", "o ut"), "out\n")
	b.content(filepath.Join(dir, "日本 $(e)"), "err\n")
	d = shell(`echo out; echo err >&2`)
	posix(d).Output, posix(d).Error = text("/dev/null"), text("only-err")
	if _, errs := b.exits(d, 0); errs != "err\n" {
		b.Errorf("standard error beside /dev/null is %q", errs)
	}
}

// Output equal to Error: one file, in the order of writing.
func testOneFile(b *bench) {
	dir := b.TempDir()
	for _, other := range []string{"both", "./both", filepath.Join(dir, "both")} {
		d := shell(`echo 1; echo 2 >&2; echo 3; echo 4 >&2`)
		posix(d).Output, posix(d).Error, posix(d).WorkingDirectory = text("both"), text(other), text(dir)
		b.exits(d, 0)
		b.content(filepath.Join(dir, "both"), "1\n2\n3\n4\n")
	}
}

func testBadFiles(b *bench) {
	dir := b.TempDir()
	d := func(change func(*jsdl.POSIXApplication)) *jsdl.JobDefinition {
		d := shell(`exit 0`)
		change(posix(d))
		return d
	}
	missing := filepath.Join(dir, "missing", "file")
	b.stopped(d(func(p *jsdl.POSIXApplication) { p.Input = text(missing) }), true, "Input", missing)
	b.stopped(d(func(p *jsdl.POSIXApplication) { p.Output = text(missing) }), true, "Output", missing)
	b.stopped(d(func(p *jsdl.POSIXApplication) { p.Error = text(missing) }), true, "Error", missing)
	b.stopped(d(func(p *jsdl.POSIXApplication) { p.Output = text(dir) }), true, "Output", dir)
	b.stopped(d(func(p *jsdl.POSIXApplication) { p.Input = text(dir) }), true, "Input", dir)
	b.stopped(d(func(p *jsdl.POSIXApplication) { p.Output = text("/proc/self/no-file-can-be-made-here") }), true, "Output")
	if _, err := os.Stat("/dev/full"); err == nil {
		full := shell(`echo x`)
		posix(full).Output = text("/dev/full")
		if _, e := b.run(full); e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus == 0 {
			b.Errorf("a program that can't write gives %s", show(e))
		}
	}
}

func testNul(b *bench) {
	b.refused(Command("/bin/true\x00x"), "Executable")
	b.refused(Command("/bin/true", "a\x00b"), "Argument")
	for _, change := range []struct {
		element string
		do      func(*jsdl.POSIXApplication)
	}{
		{"Input", func(p *jsdl.POSIXApplication) { p.Input = text("a\x00") }},
		{"Output", func(p *jsdl.POSIXApplication) { p.Output = text("a\x00") }},
		{"Error", func(p *jsdl.POSIXApplication) { p.Error = text("a\x00") }},
		{"WorkingDirectory", func(p *jsdl.POSIXApplication) { p.WorkingDirectory = text("a\x00") }},
		{"Environment", func(p *jsdl.POSIXApplication) {
			p.Environment = []jsdl.EnvironmentVariable{{Name: "A", Text: jsdl.Text{Value: "a\x00"}}}
		}},
	} {
		d := Command("/bin/true")
		change.do(posix(d))
		b.refused(d, change.element)
	}
}

func testUmask(b *bench) {
	out, _ := b.exits(shell(`umask; : > f; ls -l f`), 0)
	if want := fmt.Sprintf("%04o\n", b.h.Umask); !strings.HasPrefix(out, want) {
		b.Errorf("the umask is %q, want %q", out, want)
	}
}

func testAccounts(b *bench) {
	name := "no-such-account-here"
	d := Command("/bin/true")
	posix(d).UserName = &name
	b.refused(d, "UserName", name)
	d = Command("/bin/true")
	posix(d).GroupName = &name
	b.refused(d, "GroupName", name)
	out, _ := b.exits(shell(`id -un; id -gn`), 0)
	user, group, _ := strings.Cut(strings.TrimSpace(out), "\n")
	d = shell(`id -un; id -gn`)
	posix(d).UserName, posix(d).GroupName = &user, &group
	if again, _ := b.exits(d, 0); again != out {
		b.Errorf("as %s of %s the job runs as %q", user, group, again)
	}
}

// resourceNames are the details of testResources: an element that Harness.Lacks
// names must be refused by that name, whatever it asks for.
var resourceNames = []string{
	"CandidateHosts", "OperatingSystem", "OperatingSystemVersion", "CPUArchitecture", "IndividualCPUCount", "TotalCPUCount",
	"IndividualPhysicalMemory", "TotalPhysicalMemory", "IndividualVirtualMemory", "TotalVirtualMemory", "IndividualDiskSpace",
	"TotalDiskSpace", "TotalResourceCount", "IndividualCPUSpeed", "ExclusiveExecution",
}

// GFD.56 §6.4: requirements that the site meets let the job run, those that it can't
// meet are refused, each by its name.
func testResources(b *bench) {
	c, err := b.capacity()
	if err != nil || len(c.HostNames) == 0 {
		b.Fatalf("the site must name a host: %+v, %v", c, err)
	}
	yes := true
	exactly := func(v float64) *jsdl.RangeValue { return &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: v}}} }
	atLeast := func(v float64) *jsdl.RangeValue { return &jsdl.RangeValue{Lower: &jsdl.Bound{Value: v}} }
	atMost := func(v float64) *jsdl.RangeValue { return &jsdl.RangeValue{Upper: &jsdl.Bound{Value: v}} }
	otherOS, otherCPU := "MSDOS", "sparc"
	version := "no such version"
	var fits []*jsdl.JobDefinition
	var named []string
	for _, r := range []struct {
		names string
		r     jsdl.Resources
		fits  bool
	}{
		{"", jsdl.Resources{}, true},
		{"CandidateHosts", jsdl.Resources{CandidateHosts: []string{"no.such.host.example"}}, false},
		{"CandidateHosts", jsdl.Resources{CandidateHosts: []string{"no.such.host.example", c.HostNames[0]}}, true},
		{"CandidateHosts", jsdl.Resources{CandidateHosts: []string{strings.ToUpper(c.HostNames[0])}}, true}, // names of hosts have no case
		{"OperatingSystem", jsdl.Resources{OperatingSystem: &jsdl.OperatingSystem{Name: otherOS, HasType: true}}, false},
		{"OperatingSystem", jsdl.Resources{OperatingSystem: &jsdl.OperatingSystem{Name: c.OperatingSystem, HasType: true}}, true},
		{"OperatingSystem", jsdl.Resources{OperatingSystem: &jsdl.OperatingSystem{Name: "Not_Applicable", HasType: true}}, true},
		{"OperatingSystemVersion", jsdl.Resources{OperatingSystem: &jsdl.OperatingSystem{Version: &version}}, false},
		{"OperatingSystemVersion", jsdl.Resources{OperatingSystem: &jsdl.OperatingSystem{Version: &c.OSVersion}}, true},
		{"CPUArchitecture", jsdl.Resources{CPUArchitecture: &jsdl.CPUArchitecture{Name: otherCPU}}, false},
		{"CPUArchitecture", jsdl.Resources{CPUArchitecture: &jsdl.CPUArchitecture{Name: c.CPUArchitecture}}, true},
		{"IndividualCPUCount", jsdl.Resources{IndividualCPUCount: atLeast(float64(c.CPUs + 1))}, false},
		{"IndividualCPUCount", jsdl.Resources{IndividualCPUCount: exactly(1)}, true},
		{"TotalCPUCount", jsdl.Resources{TotalCPUCount: atLeast(1e6)}, false},
		{"TotalCPUCount", jsdl.Resources{TotalCPUCount: atMost(8)}, true},
		{"IndividualPhysicalMemory", jsdl.Resources{IndividualPhysicalMemory: atLeast(1e18)}, false},
		{"IndividualPhysicalMemory", jsdl.Resources{IndividualPhysicalMemory: atLeast(1 << 20)}, true},
		{"TotalPhysicalMemory", jsdl.Resources{TotalPhysicalMemory: atLeast(1e18)}, false},
		{"IndividualVirtualMemory", jsdl.Resources{IndividualVirtualMemory: atLeast(1e18)}, false},
		{"TotalVirtualMemory", jsdl.Resources{TotalVirtualMemory: atLeast(1 << 20)}, true},
		{"IndividualDiskSpace", jsdl.Resources{IndividualDiskSpace: atLeast(1e18)}, false},
		{"TotalDiskSpace", jsdl.Resources{TotalDiskSpace: atLeast(1)}, true},
		{"TotalResourceCount", jsdl.Resources{TotalResourceCount: exactly(float64(c.Hosts + 1))}, false},
		{"TotalResourceCount", jsdl.Resources{TotalResourceCount: atLeast(1)}, true},
		{"IndividualCPUSpeed", jsdl.Resources{IndividualCPUSpeed: atLeast(1e15)}, false},
		{"ExclusiveExecution", jsdl.Resources{ExclusiveExecution: &yes}, b.a.Check(exclusive()) == nil},
	} {
		d := Command("/bin/true")
		d.Description.Resources = &r.r
		if o := r.r.OperatingSystem; o != nil && o.HasType && o.Name == "" || o != nil && o.Version != nil && *o.Version == "" || r.r.CPUArchitecture != nil && r.r.CPUArchitecture.Name == "" {
			continue // the site has several kinds
		}
		if _, lacks := b.h.lack(b.name + "/" + r.names); r.fits && !lacks {
			fits, named = append(fits, d), append(named, r.names)
		} else {
			b.refused(d, r.names)
		}
	}
	b.allExit(fits, func(i int) string { return "a job whose " + named[i] + " fits" })
	if _, lacks := b.h.lack(b.name + "/CPUArchitecture"); runtime.GOARCH == "amd64" && !lacks {
		d := Command("/bin/true")
		d.Description.Resources = &jsdl.Resources{CPUArchitecture: &jsdl.CPUArchitecture{Name: "x86"}}
		b.exits(d, 0)
	}
	// A refusal names every element that stands against the job.
	d := Command("/bin/true")
	posix(d).UserName = &version
	d.Description.Resources = &jsdl.Resources{CandidateHosts: []string{"no.such.host.example"}, IndividualCPUCount: atLeast(1e9)}
	b.refused(d, "CandidateHosts", "IndividualCPUCount", "UserName")
	d = Command("/bin/true")
	uri := "http://example.org/file"
	d.Description.DataStaging = []jsdl.DataStaging{{FileName: "f", CreationFlag: "overwrite", Source: &jsdl.Location{URI: &uri}}}
	if b.a.Check(d) != nil {
		b.refused(d, "DataStaging")
	}
}

func exclusive() *jsdl.JobDefinition {
	yes := true
	d := Command("/bin/true")
	d.Description.Resources = &jsdl.Resources{ExclusiveExecution: &yes}
	return d
}
