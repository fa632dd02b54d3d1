package boinc_test

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/boinc"
	"github.com/portolan-project/portolan/adapters/boinc/boinctest"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// sh makes a job of a shell command.
func sh(command string) *jsdl.JobDefinition { return adaptertest.Command("/bin/sh", "-c", command) }

func (s *site) gateway(t *testing.T, more string) *boinc.Adapter {
	t.Helper()
	a := s.open(t, more)
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func submit(t *testing.T, a adapters.Adapter, tag adapters.Tag, d *jsdl.JobDefinition) (adapters.Handle, error) {
	t.Helper()
	p := a.Submit(t.Context(), []adapters.Job{{Tag: tag, Definition: d}})
	return p[0].Handle, p[0].Err
}

func place(t *testing.T, a adapters.Adapter, tag adapters.Tag, d *jsdl.JobDefinition) adapters.Handle {
	t.Helper()
	h, err := submit(t, a, tag, d)
	if err != nil {
		t.Fatalf("Submit: %v", err)
	}
	return h
}

func status(t *testing.T, a adapters.Adapter, h adapters.Handle) adapters.Evidence {
	t.Helper()
	list, err := a.Status(t.Context(), []adapters.Handle{h})
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// eventually tries until it is so, or long enough.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	patience := time.After(2 * time.Minute)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !so() {
		select {
		case <-again.C:
		case <-patience:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func until(t *testing.T, a adapters.Adapter, h adapters.Handle, what string, ok func(adapters.Evidence) bool) adapters.Evidence {
	t.Helper()
	var e adapters.Evidence
	eventually(t, what, func() bool {
		e = status(t, a, h)
		if !ok(e) && e.Phase.Final() {
			t.Fatalf("waiting for %s the job ended otherwise: %+v", what, e)
		}
		return ok(e)
	})
	return e
}

func end(t *testing.T, a adapters.Adapter, h adapters.Handle) adapters.Evidence {
	t.Helper()
	return until(t, a, h, "the end", func(e adapters.Evidence) bool { return e.Phase.Final() })
}

func exits(t *testing.T, a adapters.Adapter, h adapters.Handle, want int) {
	t.Helper()
	if e := end(t, a, h); e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus != want {
		t.Fatalf("want exit status %d, have %v (%s)", want, e.Phase, e.Reason)
	}
}

func output(t *testing.T, a adapters.Adapter, h adapters.Handle, s adapters.Stream) string {
	t.Helper()
	r, err := a.Output(t.Context(), h, s, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// refused checks that Check refuses a job by the names of elements.
func refused(t *testing.T, a adapters.Adapter, d *jsdl.JobDefinition, words ...string) {
	t.Helper()
	err := a.Check(d)
	if !fail.Is(err, fail.Unsupported) && !fail.Is(err, fail.Invalid) {
		t.Errorf("Check gives %v, want a refusal naming %q", err, words)
		return
	}
	for _, w := range words {
		if !strings.Contains(fail.Sentence(err), w) {
			t.Errorf("the refusal %q does not name %q", fail.Sentence(err), w)
		}
	}
}

// jobName is the name at the project of the job of a tag.
func jobName(tag adapters.Tag) string { return "portolan_" + string(tag) }

func (s *site) workunit(t *testing.T, tag adapters.Tag) boinctest.Workunit {
	t.Helper()
	w, ok := s.Workunit(jobName(tag))
	if !ok {
		t.Fatalf("the project has no job %s", jobName(tag))
	}
	return w
}

// batchesIn lists the names of the batches in a state.
func (s *site) batchesIn(state int) []string {
	var names []string
	for _, b := range s.Project().Batches() {
		if b.State == state {
			names = append(names, b.Name)
		}
	}
	return names
}

func (s *site) results(job string) []boinctest.Result {
	w, _ := s.Workunit(job)
	return slices.DeleteFunc(s.Project().Results(), func(r boinctest.Result) bool { return r.Workunit != w.ID })
}
