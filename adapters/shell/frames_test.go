package shell

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/jsdl"
)

func reader(data []byte) *frames { return &frames{in: bufio.NewReader(bytes.NewReader(data))} }

// What a login shell says before is passed over, within bounds.
func TestGreeting(t *testing.T) {
	t.Parallel()
	for noise, ok := range map[string]bool{
		"": true, "Welcome\nto\n": true, "\nportolan shell": true, strings.Repeat("x", maxNoise-100): true, strings.Repeat("x", 2*maxNoise): false,
	} {
		f := reader([]byte(noise + greeting + "rest"))
		if err := f.greeted(); (err == nil) != ok {
			t.Errorf("after %d bytes: %v", len(noise), err)
		} else if ok {
			if rest, err := io.ReadAll(f.in); err != nil || string(rest) != "rest" {
				t.Errorf("what is left is %q (%v)", rest, err)
			}
		}
	}
	if err := reader([]byte("bash: no such program\n")).greeted(); err == nil || !strings.Contains(err.Error(), "no such program") {
		t.Errorf("without a greeting: %v", err)
	}
}

// Whatever a program is given reaches a host as it is.
func TestHostJob(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		j := adapters.Job{Tag: "tag", Definition: &jsdl.JobDefinition{Description: jsdl.JobDescription{
			Application: &jsdl.Application{HPC: &jsdl.HPCProfileApplication{Arguments: rapid.SliceOf(text).Draw(t, "arguments")}},
			Resources:   &jsdl.Resources{CandidateHosts: []string{"a"}, TotalCPUCount: &jsdl.RangeValue{Upper: &jsdl.Bound{Value: rapid.Float64Range(1, 1e300).Draw(t, "cpus")}}},
		}}}
		var buffer bytes.Buffer
		f := &frames{in: bufio.NewReader(&buffer), out: &buffer}
		if err := f.send(call{Do: hostPlace, Jobs: []hostJob{hostJobOf(&j)}}); err != nil {
			t.Fatal(err)
		}
		var c call
		if err := f.receive(&c); err != nil {
			t.Fatal(err)
		}
		w, err := c.Jobs[0].wanted()
		if err != nil {
			t.Fatal(err)
		}
		before := j.Definition.Program()
		if len(w.program.Arguments) != len(before.Arguments) {
			t.Fatalf("%d arguments, want %d", len(w.program.Arguments), len(before.Arguments))
		}
		for i, a := range before.Arguments {
			if w.program.Arguments[i].Value != a.Value {
				t.Fatalf("argument %d is %q, want %q", i, w.program.Arguments[i].Value, a.Value)
			}
		}
		if got, want := w.definition.Description.Resources.TotalCPUCount.Upper.Value, j.Definition.Description.Resources.TotalCPUCount.Upper.Value; got != want {
			t.Fatalf("the CPUs are %v, want %v", got, want)
		}
	})
}

// Nothing that a host says makes the gateway panic or take much memory.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 40, '{', '"', 'e', 'v', 'i', 'd'})
	f.Add(append([]byte{0, 0, 0, 31}, `{"evidence":[{"Phase":3,"x":1}]}`...))
	f.Fuzz(func(_ *testing.T, data []byte) {
		in := reader(data)
		for {
			var a answer
			if err := in.receive(&a); err != nil {
				return
			}
			for _, e := range a.Evidence {
				_ = e.evidence()
			}
		}
	})
}

// An order of lines that is torn or damaged is found out.
func FuzzSegments(f *testing.F) {
	whole, err := binary.Append(nil, binary.BigEndian, []segment{{0, 0, 5}, {1, 0, 7}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte("\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "order")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		segments, err := readSegments(path, 2)
		if err != nil {
			return
		}
		for _, g := range segments {
			if g.Part > 1 || g.Length <= 0 || g.Offset < 0 {
				t.Errorf("a segment is %+v", g)
			}
		}
		// What is added after a torn one is read back.
		more, err := binary.Append(nil, binary.BigEndian, segment{1, 2, 3})
		if err != nil {
			t.Fatal(err)
		}
		if err := appendTo(path, more); err != nil {
			t.Fatal(err)
		}
		if again, err := readSegments(path, 2); err != nil || len(again) != len(segments)+1 || again[len(again)-1] != (segment{1, 2, 3}) {
			t.Errorf("after adding it is %+v (%v)", again, err)
		}
	})
}

// However lines are cut up on their way, they come whole.
func TestMergeProperty(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		out, err := os.Create(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		m := &merge{file: out, limit: unlimited, over: func() {}}
		var want []string
		for i := range rapid.IntRange(1, 4).Draw(rt, "writers") {
			w, err := m.pipe()
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			for _, body := range rapid.SliceOfN(rapid.StringMatching(`[a-z]{0,200}`), 0, 30).Draw(rt, "lines") {
				line := string(rune('A'+i)) + body + "\n"
				want = append(want, line)
				text.WriteString(line)
			}
			size := rapid.IntRange(1, 64).Draw(rt, "pieces")
			go func() {
				defer w.Close()
				for s := text.String(); s != ""; {
					k := min(size, len(s))
					_, _ = w.WriteString(s[:k])
					s = s[k:]
				}
			}()
		}
		m.wait()
		data, err := os.ReadFile(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]int{}
		for line := range strings.Lines(string(data)) {
			have[line]++
		}
		for _, line := range want {
			if have[line]--; have[line] < 0 {
				rt.Fatalf("the line %q is not there", line)
			}
		}
	})
}
