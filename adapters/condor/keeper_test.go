package condor

import (
	"encoding/json"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/internal/program"
)

// A schedd that dies while a program ends may not tell of the end until the job's lease is
// over. What the runner recorded stands before that, and the job leaves the queue.
func TestConclude(t *testing.T) {
	root := t.TempDir()
	b := &book{dir: root, settings: &Settings{}, jobs: map[adapters.Tag]*job{}, removals: map[ids]adapters.Tag{}, news: make(chan struct{})}
	a := &Adapter{book: b, settings: b.settings, log: slog.New(slog.DiscardHandler)}
	seven := 7
	for _, c := range []struct {
		tag    adapters.Tag
		end    *program.End
		cancel bool
		bound  bool
		want   adapters.Phase
	}{
		{"ended", &program.End{Status: &seven}, false, true, adapters.Exited},
		{"cancelled", &program.End{Signal: "SIGTERM", Told: true}, true, true, adapters.Cancelled},
		{"held", &program.End{Signal: "SIGTERM", Told: true}, false, true, adapters.Running},
		{"runs", nil, false, true, adapters.Running},
		{"elsewhere", &program.End{Status: &seven}, false, false, adapters.Running},
	} {
		j := &job{tag: c.tag, dir: jobDir(b.path(dirJobs, string(c.tag))), phase: adapters.Running, at: ids{len(b.jobs) + 1, 0}, bound: c.bound}
		b.jobs[c.tag] = j
		if err := os.MkdirAll(string(j.dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if c.end != nil {
			data, err := json.Marshal(ended{Version: version, Ended: time.Now(), End: *c.end})
			if err != nil {
				t.Fatal(err)
			}
			if err := create(j.dir.path(nameEnd), data); err != nil {
				t.Fatal(err)
			}
		}
		if c.cancel {
			if err := create(j.dir.path(nameCancel), nil); err != nil {
				t.Fatal(err)
			}
		}
		now := time.Now()
		a.conclude(now)
		a.conclude(now.Add(overdue - time.Second))
		if j.phase != adapters.Running {
			t.Errorf("%s: HTCondor is given no time to tell it itself: %v", c.tag, j.phase)
		}
		a.conclude(now.Add(overdue))
		if e := j.evidence(); e.Phase != c.want || c.want == adapters.Exited && (e.ExitStatus == nil || *e.ExitStatus != seven) {
			t.Errorf("%s: %+v, want %v", c.tag, e, c.want)
		}
		if _, removed := b.removals[j.at]; removed != c.want.Final() {
			t.Errorf("%s: that it is to leave the queue is %v", c.tag, removed)
		}
	}
}
