package plugin

import (
	"bytes"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	goproto "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/jsdl"
)

const sample = `<jsdl:JobDefinition xmlns:jsdl="http://schemas.ggf.org/jsdl/2005/11/jsdl" xmlns:posix="http://schemas.ggf.org/jsdl/2005/11/jsdl-posix"
 xmlns:portolan="http://portolan-project.org/ns/2026/jsdl" xmlns:x="urn:x">
<jsdl:JobDescription>
 <jsdl:JobIdentification><jsdl:JobName>n</jsdl:JobName><jsdl:JobProject>p</jsdl:JobProject></jsdl:JobIdentification>
 <jsdl:Application><jsdl:ApplicationName>a</jsdl:ApplicationName>
  <posix:POSIXApplication><posix:Executable filesystemName="data">bin/x</posix:Executable><posix:Argument>1</posix:Argument>
   <posix:Input filesystemName="HOME">in</posix:Input>
   <posix:WallTimeLimit>99999999999999999999999999</posix:WallTimeLimit><posix:CoreDumpLimit>0</posix:CoreDumpLimit></posix:POSIXApplication></jsdl:Application>
 <jsdl:Resources><jsdl:FileSystem name="data"><jsdl:MountPoint>/data/</jsdl:MountPoint></jsdl:FileSystem>
  <jsdl:OperatingSystem><jsdl:OperatingSystemVersion>6</jsdl:OperatingSystemVersion></jsdl:OperatingSystem>
  <jsdl:TotalCPUCount><jsdl:UpperBoundedRange exclusiveBound="true">8</jsdl:UpperBoundedRange><jsdl:Exact epsilon="0.5">12</jsdl:Exact></jsdl:TotalCPUCount>
  <portolan:Placement><portolan:Share>s</portolan:Share></portolan:Placement></jsdl:Resources>
 <jsdl:DataStaging><jsdl:FileName>f</jsdl:FileName><jsdl:CreationFlag>overwrite</jsdl:CreationFlag><jsdl:Target><jsdl:URI>ftp://h/f</jsdl:URI></jsdl:Target></jsdl:DataStaging>
</jsdl:JobDescription></jsdl:JobDefinition>`

// The view says what the document says.
func TestView(t *testing.T) {
	d, problems := jsdl.Parse([]byte(sample), jsdl.Options{})
	if err := problems.Invalid().Err(); err != nil {
		t.Fatal(err)
	}
	p, err := definition(d)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{
		"posix:Executable", "posix:Argument", "posix:Input", "posix:WallTimeLimit", "posix:CoreDumpLimit", "jsdl:Resources/jsdl:FileSystem",
		"jsdl:Resources/jsdl:FileSystem/jsdl:MountPoint", "jsdl:Resources/jsdl:OperatingSystem/jsdl:OperatingSystemVersion",
		"jsdl:Resources/jsdl:TotalCPUCount", "portolan:Placement/portolan:Share", "jsdl:DataStaging",
	}; !slices.Equal(p.Elements, want) {
		t.Errorf("elements %q\nwant     %q", p.Elements, want)
	}
	x := p.Program
	if x.Executable.Path != "/data/bin/x" || x.Executable.Value != "bin/x" || x.Input.Path != "" || x.Input.FileSystem != "HOME" || len(x.Arguments) != 1 {
		t.Errorf("program %v", x)
	}
	if x.Limits.GetWallTime() != math.MaxUint64 || x.Limits.CoreDump == nil || x.Limits.CpuTime != nil {
		t.Errorf("limits %v", x.Limits)
	}
	n := p.Needs
	if n.GetPlacement().GetShare() != "s" || n.GetOperatingSystemVersion() != "6" || n.OperatingSystem != nil || n.TotalCpuTime != nil {
		t.Errorf("needs %v", n)
	}
	if i := n.TotalCpuCount.GetIntervals(); len(i) != 2 || i[0].Lower != nil || i[0].GetUpper() != 8 || !i[0].UpperExcluded || i[1].GetLower() != 11.5 || i[1].GetUpper() != 12.5 {
		t.Errorf("intervals %v", i)
	}
	if p.Name != "n" || !slices.Equal(p.Projects, []string{"p"}) || len(p.Staging) != 1 || p.Staging[0].Source != nil || p.Staging[0].GetTarget() != "ftp://h/f" {
		t.Errorf("%q %q %v", p.Name, p.Projects, p.Staging)
	}
	back, err := readDefinition(p)
	if err != nil || !bytes.Equal(back.Marshal(), d.Marshal()) {
		t.Errorf("the document comes back as\n%s (%v)", back.Marshal(), err)
	}
	// Without an executable the application's name is what is to be run.
	d.Description.Application.POSIX = nil
	if !slices.Contains(Elements(d), "jsdl:Application/jsdl:ApplicationName") {
		t.Errorf("elements of a named application: %q", Elements(d))
	}
}

// Whatever strings a program has arrive as they are; what can't travel is refused by
// its element's name.
func TestStringsTravel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", " ", "\t", "a\nb", "\r\n", "]]>", "\x01", "\uFFFE", "\x00", "\xff"}))
		exe, arg, value, in := text.Draw(t, "executable"), text.Draw(t, "argument"), text.Draw(t, "value"), text.Draw(t, "input")
		d := adaptertest.Command("/bin/"+exe, arg, "last")
		p := d.Description.Application.POSIX
		p.Environment = []jsdl.EnvironmentVariable{{Name: "V", Text: jsdl.Text{Value: value}}}
		p.Input = &jsdl.Text{Value: in}
		w, err := definition(d)
		if err != nil {
			if !fail.Is(err, fail.Invalid) || fail.Sentence(err) == "" {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		b, err := goproto.Marshal(w)
		if err != nil {
			t.Fatalf("it can't travel: %v", err)
		}
		var there proto.Definition
		if err := goproto.Unmarshal(b, &there); err != nil {
			t.Fatal(err)
		}
		back, err := readDefinition(&there)
		if err != nil {
			t.Fatalf("%q %q %q %q: %v", exe, arg, value, in, err)
		}
		if q := back.Description.Application.POSIX; q.Executable.Value != "/bin/"+exe || q.Arguments[0].Value != arg || q.Environment[0].Value != value || q.Input.Value != in {
			t.Fatalf("%q arrives as %+v", []string{exe, arg, value, in}, q)
		}
	})
}

func TestTooLarge(t *testing.T) {
	d := adaptertest.Command("/bin/true", strings.Repeat("x", maxDefinition))
	if _, err := definition(d); !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "Argument") {
		t.Errorf("%v", err)
	}
	if got := batches(5, 2, func(int) int { return 1 }); len(got) != 3 {
		t.Errorf("batches of two: %v", got)
	}
	if got := batches(3, 10, func(int) int { return batchBytes }); len(got) != 3 {
		t.Errorf("large jobs: %v", got)
	}
	for max, want := range map[int]int{0: submitItems, 7: 7, 9000: submitItems} {
		h := &host{props: adapters.Properties{MaxBatch: max}}
		if got := h.most(submitItems); got != want {
			t.Errorf("a plug-in that takes %d at once gets %d, want %d", max, got, want)
		}
	}
}

// FuzzEvidence: whatever a plug-in sends is taken without harm, and only what can be
// true ends a job.
func FuzzEvidence(f *testing.F) {
	status := int32(3)
	for _, e := range []*proto.Evidence{{Tag: "a", Phase: 5, ExitStatus: &status}, {Tag: "a", Phase: 8}, {Tag: "a", Phase: 3, Hosts: []string{"h"}, Attributes: map[string]string{"k": "v"}}} {
		b, err := goproto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p proto.Evidence
		if goproto.Unmarshal(b, &p) != nil {
			return
		}
		for _, h := range []adapters.Handle{nil, adapters.Handle("h")} {
			e := readEvidence(&p, h)
			if e.Phase == adapters.Unknown && e.Err == nil || e.Phase.Final() && e.Tag.Validate() != nil || len(e.Attributes) > adapters.MaxAttributes ||
				e.Phase == adapters.Exited && (e.ExitStatus == nil) == (e.Signal == "") || len(e.Reason) > maxSentence {
				t.Errorf("%+v", e)
			}
			// What we took we can tell again.
			if e.Phase != adapters.Unknown {
				if again := readEvidence(evidence(&e), h); again.Phase != e.Phase || again.Reason != e.Reason {
					t.Errorf("%+v becomes %+v", e, again)
				}
			}
		}
	})
}

// FuzzHandshake: no first line of a program does harm.
func FuzzHandshake(f *testing.F) {
	for _, s := range []string{"1|1|unix|/s/x|grpc|", "1|1|tcp|127.0.0.1:1|grpc|AAAA", "", "|||||", "1|2|unix|x|grpc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, tls := range []bool{true, false} {
			p := &process{tls: tls, sockets: "/s"}
			good, err := p.check(line)
			if err == nil && (strings.Count(good, "|") != 5 || strings.ContainsAny(good, "\n") && !strings.ContainsAny(line, "\n") || (strings.HasSuffix(good, "|") == tls)) {
				t.Errorf("%q is taken as %q", line, good)
			}
		}
	})
}

func TestLogLines(t *testing.T) {
	for _, c := range []struct{ line, level, message string }{
		{"[ERROR] it broke", "ERROR", "it broke"},
		{"[WARN]x", "WARN", "x"},
		{"plain", "DEBUG", "plain"},
		{"[] x", "DEBUG", "[] x"},
		{`{"level":"INFO","msg":"hi","n":1}`, "INFO", "hi"},
		{`{"@level":"error","@message":"no"}`, "ERROR", "no"},
		{`{"a":`, "DEBUG", `{"a":`},
		{"panic: oh", "ERROR", "panic: oh"},
		{`{"level":"loud","msg":"x"}`, "DEBUG", `{"level":"loud","msg":"x"}`},
	} {
		level, message, _ := readLine(c.line)
		if level.String() != c.level || message != c.message {
			t.Errorf("%q is %v %q", c.line, level, message)
		}
	}
	j := &journal{}
	w := newLogWriter(j.logger())
	for range 100 {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 10_000)) // a line that does not end
	}
	_, _ = w.Write([]byte("\n[INFO] after\n"))
	if s := j.String(); len(s) > 2*maxStderr || !strings.Contains(s, "msg=after") {
		t.Errorf("%d bytes were logged", len(s))
	}
}

// The generated files are those of adapter.proto.
func TestGenerated(t *testing.T) {
	testenv.Tool(t, "protoc", "protobuf-compiler")
	dir := t.TempDir()
	if out, err := exec.Command("protoc", "-Iproto", "--python_out="+dir, "adapter.proto").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	fresh, err := os.ReadFile(filepath.Join(dir, "adapter_pb2.py"))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile("examples/python/adapter_pb2.py")
	if err != nil {
		t.Fatal(err)
	}
	version, _ := exec.Command("protoc", "--version").Output()
	if !bytes.Equal(fresh, kept) && strings.Contains(string(version), "3.21.") {
		t.Error("adapter_pb2.py is not that of adapter.proto: run proto/generate.sh")
	}
	// The Go side is compared by its description, which any version of protoc gives.
	set := filepath.Join(dir, "set")
	if out, err := exec.Command("protoc", "-Iproto", "--descriptor_set_out="+set, "adapter.proto").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(set)
	if err != nil {
		t.Fatal(err)
	}
	var files descriptorpb.FileDescriptorSet
	if err := goproto.Unmarshal(data, &files); err != nil {
		t.Fatal(err)
	}
	if !goproto.Equal(files.File[0], protodesc.ToFileDescriptorProto(proto.File_adapter_proto)) {
		t.Error("adapter.pb.go is not that of adapter.proto: run proto/generate.sh")
	}
}
