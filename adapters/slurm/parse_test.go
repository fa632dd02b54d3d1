package slurm

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

func TestParseQueue(t *testing.T) {
	out := "12_3|FAILED|35072|1795558001|1795558004|1795558005|1|n[1-2]|root|NonZeroExitCode|portolan.ab.t.1|\n" +
		"7|PENDING|0|1795558001|N/A|N/A|0||root|(Nodes|needed)|evil|name|\n" +
		"not a job\n" + "9|RUNNING|x|1|1|1|0||root|None|n|\n"
	got := parseQueue(out)
	want := []record{
		{ID: jobID{12, 3}, State: "FAILED", Status: 137 << 8, Exact: true, Submitted: time.Unix(1795558001, 0), Started: time.Unix(1795558004, 0), Ended: time.Unix(1795558005, 0), Restarts: 1, Nodes: "n[1-2]", User: "root", Reason: "NonZeroExitCode", Name: "portolan.ab.t.1"},
		{ID: jobID{7, -1}, State: "PENDING", Exact: true, Submitted: time.Unix(1795558001, 0), User: "root", Reason: "(Nodes|needed)|evil", Name: "name"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("have %+v\nwant %+v", got, want)
	}
}

func TestParsePast(t *testing.T) {
	got := parsePast("3_1|CANCELLED by 65534|0:15|1|2|3|n1|nobody|portolan.x.y|z\n4.batch|FAILED|1:0|1|2|3|n1|u|n\n12_[0-3]|PENDING|0:0|1|Unknown|Unknown||u|n\n")
	if len(got) != 1 || got[0].ID != (jobID{3, 1}) || got[0].By != "65534" || got[0].Status != 15 || got[0].Name != "portolan.x.y|z" || got[0].Exact {
		t.Errorf("have %+v", got)
	}
}

func TestMinutes(t *testing.T) {
	for text, want := range map[string]int64{
		"UNLIMITED": 0, "NONE": 0, "01:00:00": 60, "00:10:00": 10, "1-00:00:00": 1440, "2-03:04": 2*1440 + 184, "10": 10, "10:30": 11, "1-0": 1440, "x-1": 0, "-5": 0,
	} {
		if got := minutes(text); got != want {
			t.Errorf("minutes(%q) is %d, want %d", text, got, want)
		}
	}
}

func TestParseGPUs(t *testing.T) {
	got := parseGPUs("gpu:a100:4(S:0-1),gpu:2,gpu:v100,fpga:7,gpu")
	if want := map[string]int{"a100": 4, "": 3, "v100": 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("have %v, want %v", got, want)
	}
}

func TestComplaints(t *testing.T) {
	for said, want := range map[string]fail.Kind{
		"sbatch: error: Batch job submission failed: Invalid partition name specified\n":                   fail.Unsupported,
		"sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)": fail.Unavailable,
		"sbatch: error: Batch job submission failed: Socket timed out on send/recv operation":              fail.Uncertain,
		"scontrol: error: Could not establish a configuration source":                                      fail.Unavailable,
		"slurm_suspend error: Job is pending execution":                                                    fail.Conflict,
		"scancel: error: Kill job error on job id 3: Access/permission denied":                             fail.Denied,
		"slurm_load_jobs error: Invalid job id specified":                                                  fail.NotFound,
		"what nobody foresaw": fail.Uncertain,
		"":                    fail.Uncertain,
	} {
		err := complaint("test", []byte(said))
		if fail.KindOf(err) != want || strings.Contains(fail.Sentence(err), "sbatch: ") {
			t.Errorf("%q is %v, want the kind %v", said, err, want)
		}
	}
}

// A host list that is written is read again, whatever the names.
func TestHostlist(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,3}(-[a-z])?([0-9]{1,4})?`), 0, 40, func(s string) string { return s }).Draw(t, "names")
		got := expand(hostlist(names))
		slices.Sort(got)
		slices.Sort(names)
		if !slices.Equal(got, names) {
			t.Fatalf("%q is written %q and read %q", names, hostlist(names), got)
		}
	})
}

// Whatever a path holds, the shell on the node takes it for one word.
func TestQuote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		q := quote(s)
		if strings.ReplaceAll(q[1:len(q)-1], `'\''`, "") != strings.ReplaceAll(s, "'", "") || q[0] != '\'' || q[len(q)-1] != '\'' {
			t.Fatalf("%q is quoted %q", s, q)
		}
	})
}

func FuzzParseQueue(f *testing.F) {
	f.Add("12_3|FAILED|35072|1|2|3|1|n[1-2]|root|NonZeroExitCode|portolan.ab.t.1|\n")
	f.Add("1|CANCELLED by 0|0|N/A|N/A|N/A|0||u||n|\n||||||||||\n")
	f.Fuzz(func(t *testing.T, out string) {
		for _, r := range parseQueue(out) {
			if r.State == "" || r.ID.Job < 0 || r.ID.Task < -1 {
				t.Errorf("%q gives %+v", out, r)
			}
			expand(r.Nodes)
		}
	})
}

func FuzzParsePast(f *testing.F) {
	f.Add("3_1|CANCELLED by 65534|0:15|1|2|3|n1|nobody|portolan.x.y\n")
	f.Fuzz(func(t *testing.T, out string) {
		for _, r := range parsePast(out) {
			if r.State == "" || r.ID.Job < 0 || r.Status < 0 {
				t.Errorf("%q gives %+v", out, r)
			}
		}
	})
}

func FuzzParseScontrol(f *testing.F) {
	f.Add("NodeName=n1 Arch=x86_64 CPUAlloc=1 CPUEfctv=4 OS=Linux 6.1 #1 SMP State=MIXED+DRAIN Partitions=a,b RealMemory=4096\n")
	f.Add("PartitionName=a Default=YES MaxTime=1-00:00:00 State=UP MaxNodes=UNLIMITED\n")
	f.Add("SLURM_VERSION = 22.05.8\nMaxArraySize = 1001\nMessageTimeout = 10 sec\n")
	f.Fuzz(func(t *testing.T, out string) {
		for _, n := range parseNodes(out) {
			if n.Name == "" || n.CPUs < 0 || n.Memory < 0 {
				t.Errorf("%q gives %+v", out, n)
			}
			n.takes()
			n.gpus("")
		}
		for _, p := range parsePartitions(out) {
			if p.Name == "" || p.MaxMinutes < 0 {
				t.Errorf("%q gives %+v", out, p)
			}
		}
		if c, err := parseConfig(out); err == nil && c.Version == "" {
			t.Errorf("%q gives %+v", out, c)
		}
	})
}

func FuzzParseReservations(f *testing.F) {
	f.Add(reservationsSaid)
	f.Add("No reservations in the system\n")
	f.Fuzz(func(t *testing.T, out string) {
		for _, b := range parseReservations(out) {
			if b.Name == "" || b.From.IsZero() || b.Until.IsZero() || b.CPUs < 0 || len(b.Nodes) > maxHosts {
				t.Errorf("%q gives %+v", out, b)
			}
		}
	})
}

func FuzzRestV38(f *testing.F) {
	f.Add([]byte(`{"jobs":[{"job_id":3,"array_job_id":3,"array_task_id":1,"job_state":"FAILED","exit_code":256,"name":"x"},{"job_id":4,"array_job_id":4,"array_task_id":null,"array_task_string":"0,2-3","job_state":"PENDING"}]}`))
	f.Add([]byte(`{"nodes":[{"name":"n","state":"idle","state_flags":["DRAIN"],"cpus":4}],"partitions":[{"name":"a","flags":["default"],"max_time_limit":-1,"state":"UP"}]}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = restV38.jobs(data)
		_, _ = restV38.nodes(data)
		_, _ = restV38.partitions(data)
		_ = complainedOf(data, 500)
	})
}

func FuzzSpec(f *testing.F) {
	s, err := json.Marshal(spec{Version: specVersion, Tag: "a", Batch: "b", Executable: "/bin/true", Make: []string{"work"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSpec(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		two, err := parseSpec(again)
		if err != nil || !reflect.DeepEqual(s, two) {
			t.Errorf("%q is read %+v, written %q and read %+v (%v)", data, s, again, two, err)
		}
	})
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte("a" + strings.Repeat(" ", adapters.MaxTag-1) + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		tags, err := parseMembers(data)
		if err != nil {
			return
		}
		for _, tag := range tags {
			if tag.Validate() != nil {
				t.Errorf("%q gives the tag %q", data, tag)
			}
		}
	})
}
