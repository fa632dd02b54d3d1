package shell

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
)

func drawEnded(t *rapid.T) ended {
	finals := []adapters.Phase{adapters.Exited, adapters.Stopped, adapters.Cancelled, adapters.Lost}
	e := ended{
		Phase: rapid.SampledFrom(finals).Draw(t, "phase"), Signal: rapid.SampledFrom([]string{"", "SIGSEGV"}).Draw(t, "signal"),
		Reason: rapid.String().Draw(t, "reason"), NotRun: rapid.Bool().Draw(t, "notRun"),
		Started: time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "started"), 5).UTC(), Ended: time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "ended"), 7).UTC(),
	}
	if rapid.Bool().Draw(t, "exits") {
		status := rapid.IntRange(0, 255).Draw(t, "status")
		e.ExitStatus = &status
	}
	return e
}

// What is written is read back, however long the sentence.
func TestRecords(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		want := drawEnded(t)
		want.Reason = strings.Repeat(want.Reason, rapid.IntRange(1, 50).Draw(t, "times"))
		path := filepath.Join(dir, nameJob)
		if err := os.WriteFile(path, make([]byte, 2*block), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := jobDir(dir).claim()
		if err != nil {
			t.Fatal(err)
		}
		b := begun{Version: recordVersion, Supervisor: "S", Process: 7, Started: want.Started, Groups: []string{"/a", "/b"}}
		if err := begin(f, b); err != nil {
			t.Fatal(err)
		}
		if err := end(f, want); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		if _, err := jobDir(dir).claim(); err != errTaken { //nolint:errorlint // it is not wrapped
			t.Fatalf("a job that has ended can be claimed: %v", err)
		}
		gotB, got, started, err := jobDir(dir).read()
		if err != nil || !started || got == nil || !reflect.DeepEqual(*gotB, b) {
			t.Fatalf("read %+v, %+v, %v, %v", gotB, got, started, err)
		}
		want.Version, want.Reason = recordVersion, clip(want.Reason)
		if !utf8.ValidString(want.Reason) && utf8.ValidString(got.Reason) {
			want.Reason = got.Reason // JSON has no other way
		}
		if !reflect.DeepEqual(*got, want) {
			t.Fatalf("read back %+v, want %+v", *got, want)
		}
	})
}

// The longest sentence fits, even if every byte of it is escaped.
func TestClip(t *testing.T) {
	for _, s := range []string{strings.Repeat("\x01", 5000), strings.Repeat("日", 2000), strings.Repeat("<", 5000), strings.Repeat("\xff", 5000)} {
		c := clip(s)
		if len(c) > maxReason+len("…") {
			t.Errorf("clipped to %d bytes", len(c))
		}
		if _, err := encodeBlock(ended{Version: recordVersion, Phase: adapters.Stopped, Reason: c}); err != nil {
			t.Error(err)
		}
	}
}

// A record that was cut off anywhere is no end.
func TestTornRecord(t *testing.T) {
	whole, err := encodeBlock(ended{Version: recordVersion, Phase: adapters.Exited, Reason: "r"})
	if err != nil {
		t.Fatal(err)
	}
	length := bytes.IndexByte(whole, '\n') + 1
	for n := range length {
		data := make([]byte, 2*block)
		copy(data[block:], whole[:n])
		if _, e := parseState(data); e != nil {
			t.Fatalf("%d of %d bytes are read as %+v", n, length, e)
		}
	}
}

// One at a time has a job, and nobody has it after it was begun.
func TestClaim(t *testing.T) {
	jobs, staging := t.TempDir(), t.TempDir()
	s := &spec{Version: recordVersion, Tag: "t", Need: 1}
	if made, err := place(jobs, staging, s); !made || err != nil {
		t.Fatal(made, err)
	}
	if made, err := place(jobs, staging, s); made || err != nil {
		t.Fatalf("placed twice: %v", err)
	}
	if left, _ := os.ReadDir(staging); len(left) != 0 {
		t.Errorf("staging holds %v", left)
	}
	d := jobDir(filepath.Join(jobs, "t"))
	first, err := d.claim()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.claim(); err != errTaken { //nolint:errorlint // it is not wrapped
		t.Errorf("claimed twice: %v", err)
	}
	if err := begin(first, begun{Version: recordVersion}); err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	if _, err := d.claim(); err != errTaken { //nolint:errorlint // it is not wrapped
		t.Errorf("claimed after it was begun: %v", err)
	}
	if _, err := jobDir(jobs + "/none").claim(); err != errTaken { //nolint:errorlint // it is not wrapped
		t.Errorf("a job that is not there: %v", err)
	}
}

func FuzzState(f *testing.F) {
	b, _ := encodeBlock(begun{Version: 1, Supervisor: "s", Groups: []string{"/x"}})
	e, _ := encodeBlock(ended{Version: 1, Phase: adapters.Exited})
	f.Add(append(b, e...))
	f.Add(make([]byte, 2*block))
	f.Add([]byte(`{"version":1}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, e := parseState(data)
		if b != nil && b.Version != recordVersion || e != nil && (e.Version != recordVersion || !e.Phase.Final()) {
			t.Errorf("read %+v, %+v", b, e)
		}
	})
}

func FuzzSpec(f *testing.F) {
	good, _ := json.Marshal(spec{Version: 1, Tag: "t", Need: 1, Limits: map[string]uint64{limitWallTime: 3}})
	f.Add(good)
	f.Add([]byte(`{"version":1,"tag":"../../x","need":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSpec(data)
		if err != nil {
			return
		}
		if s.Tag.Validate() != nil || s.Need < 1 || s.Umask&^0o777 != 0 {
			t.Errorf("read %+v", s)
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseSpec(again); err != nil || !reflect.DeepEqual(back, s) && !strings.Contains(string(data), "null") && !bytes.Contains(data, []byte("[]")) && !bytes.Contains(data, []byte("{}")) {
			t.Errorf("%+v comes back as %+v (%v)", s, back, err)
		}
	})
}

func FuzzPlaceOf(f *testing.F) {
	f.Add("32 24 0:28 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n", "6:freezer:/a/b\n0::/\n")
	f.Fuzz(func(t *testing.T, mounts, own string) {
		for name, dir := range placeOf(mounts, own) {
			if strings.Contains(name, ",") || dir == "" {
				t.Errorf("%q is at %q", name, dir)
			}
		}
	})
}

func TestPlaceOf(t *testing.T) {
	for _, c := range []struct {
		name, mounts, own string
		want              map[string]string
	}{
		{
			"version 2 alone",
			"29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			"0::/system.slice/portolan.service\n",
			map[string]string{"": "/sys/fs/cgroup/system.slice/portolan.service"},
		},
		{
			"both, with joined controllers",
			"30 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n31 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n33 25 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			"4:memory:/m/x\n2:cpu,cpuacct:/\n0::/u\n",
			map[string]string{"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory/m/x", "": "/sys/fs/cgroup/unified/u"},
		},
		{
			"in a container, below its own root, with a blank",
			"31 25 0:28 /docker/abc /sys/fs/c\\040group rw - cgroup cgroup rw,memory\n",
			"4:memory:/docker/abc/in\n",
			map[string]string{"memory": "/sys/fs/c group/in"},
		},
		{
			"outside of what is mounted",
			"31 25 0:28 /docker/abc /sys/fs/cgroup rw - cgroup cgroup rw,memory\n",
			"4:memory:/elsewhere\n",
			map[string]string{},
		},
	} {
		if got := placeOf(c.mounts, c.own); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
