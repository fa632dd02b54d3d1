package bes_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func TestEveryOperationThereAndBack(t *testing.T) {
	for _, v := range []soap.Version{soap.V11, soap.V12} {
		for _, o := range []bes.ServerOptions{{}, {Dialect: bes.Dialect2007}, {ARC: true}} {
			t.Run("soap "+v.String(), func(t *testing.T) { everyOperation(t, newWorld(t, o, v), o) })
		}
	}
}

func everyOperation(t *testing.T, w *world, o bes.ServerOptions) {
	ctx := t.Context()
	a, b := w.create(t), w.create(t)
	if id, ok := bes.ActivityID(a); !ok || id != "00000001" {
		t.Fatalf("the activity's id is %q, %v", id, ok)
	}
	w.svc.Advance(a, bes.Running, "Executing", "it runs")
	unknown := bes.NewEPR("http://elsewhere.example/bes", "77")
	list := []soap.EPR{b, unknown, a, a}
	states, err := w.GetActivityStatuses(ctx, &bes.StatusRequest{Activities: list})
	if err != nil {
		t.Fatal(err)
	}
	if s := states[0].Status; s.State != bes.Pending || s.SubStates[0] != (xmldoc.Name{Space: bes.NSPortolan, Local: "Queued"}) || s.Details.Name != "hello" {
		t.Errorf("first status is %+v", s)
	}
	if !fail.Is(states[1].Err, fail.NotFound) {
		t.Errorf("an unknown activity gives %v", states[1].Err)
	}
	for _, s := range states[2:] {
		if s.Err != nil || s.Status.State != bes.Running || s.Status.SubStates[0].Local != "Executing" || s.Status.Details.Started.IsZero() || s.Status.Details.Reason != "it runs" {
			t.Errorf("status of a running activity is %+v", s)
		}
	}
	docs, err := w.GetActivityDocuments(ctx, []soap.EPR{a, unknown})
	if err != nil {
		t.Fatal(err)
	}
	sent, _ := xmldoc.ReadBytes([]byte(job), xmldoc.Limits{})
	got, err := xmldoc.ReadBytes(docs[0].Document, xmldoc.Limits{})
	if err != nil || docs[0].Err != nil {
		t.Fatal(err, docs[0].Err)
	}
	if got.Name(got.Root()) != sent.Name(sent.Root()) || strings.TrimSpace(got.Root().FindElement("//Argument").Text()) != "a & b" {
		t.Errorf("the document came back as %s", docs[0].Document)
	}
	if !fail.Is(docs[1].Err, fail.NotFound) {
		t.Errorf("the document of an unknown activity gives %v", docs[1].Err)
	}
	w.svc.Finish(a, 3, "out\n", "err\n")
	ended, err := w.TerminateActivities(ctx, []soap.EPR{a, unknown, b, b})
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := errors.AsType[*bes.StateError](ended[0].Err); !ok || st.Status.State != bes.Finished || !fail.Is(ended[0].Err, fail.Conflict) || *st.Status.Details.ExitStatus != 3 {
		t.Errorf("terminating a finished activity gives %v", ended[0].Err)
	}
	if !fail.Is(ended[1].Err, fail.NotFound) || ended[2].Err != nil || ended[3].Err != nil {
		t.Errorf("terminating gives %v, %v, %v", ended[1].Err, ended[2].Err, ended[3].Err)
	}
	fa, err := w.GetFactoryAttributesDocument(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := w.svc.GetFactoryAttributesDocument(soap.WithPrincipal(ctx, soap.Principal{Name: "anonymous"}))
	if *fa.Basic != *want.Basic || !slices.Equal(fa.ContainedResources, want.ContainedResources) || !slices.Equal(fa.Extensions, want.Extensions) ||
		!slices.Equal(fa.NamingProfiles, want.NamingProfiles) || fa.LocalResourceManagerType != want.LocalResourceManagerType ||
		fa.TotalNumberOfActivities != 2 || len(fa.Activities) != 2 || !fa.IsAcceptingNewActivities || fa.CommonName != want.CommonName || fa.LongDescription != want.LongDescription {
		t.Errorf("factory attributes came back as %+v, want %+v", fa, want)
	}
	if err := w.StopAcceptingNewActivities(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CreateActivity(ctx, &bes.CreateActivityRequest{Document: []byte(job)}); !fail.Is(err, fail.NotAccepting) {
		t.Errorf("a stopped service gives %v", err)
	}
	if err := w.StartAcceptingNewActivities(ctx); err != nil {
		t.Fatal(err)
	}
	c := w.create(t)
	for _, step := range []struct {
		do   func() ([]bes.Result, error)
		want string
	}{
		{func() ([]bes.Result, error) { return w.SuspendActivities(ctx, []soap.EPR{c, unknown}) }, "Held"},
		{func() ([]bes.Result, error) { return w.ResumeActivities(ctx, []soap.EPR{c, unknown}) }, "Queued"},
	} {
		rs, err := step.do()
		if err != nil || rs[0].Err != nil || !fail.Is(rs[1].Err, fail.NotFound) {
			t.Errorf("%s: %v, %v", step.want, err, rs)
		}
		states, err := w.GetActivityStatuses(ctx, &bes.StatusRequest{Activities: []soap.EPR{c}})
		if err != nil || states[0].Status.SubStates[0].Local != step.want {
			t.Errorf("%v, %+v, want %s", err, states, step.want)
		}
	}
	lines, err := w.GetActivityHistory(ctx, a)
	if err != nil || len(lines) != 3 || lines[2].State != bes.Finished || lines[0].SubState != "Queued" || lines[1].Sequence != 2 || lines[1].Time.IsZero() {
		t.Errorf("history is %+v, %v", lines, err)
	}
	if _, err := w.GetActivityHistory(ctx, unknown); !fail.Is(err, fail.NotFound) {
		t.Errorf("history of an unknown activity gives %v", err)
	}
	chunk, err := w.GetActivityOutput(ctx, a, bes.Stdout, 1, 2)
	if err != nil || string(chunk.Data) != "ut" || chunk.Offset != 1 || !chunk.More {
		t.Errorf("output is %+v, %v", chunk, err)
	}
	chunk, err = w.GetActivityOutput(ctx, a, bes.Stderr, 0, 1<<30)
	if err != nil || string(chunk.Data) != "err\n" || chunk.More {
		t.Errorf("output is %+v, %v", chunk, err)
	}

	got2 := w.payloads(t)
	schema := "bes/gfd108-gridsam/bes-factory.xsd"
	if o.Dialect == bes.Dialect2007 {
		schema = "bes/derived/bes-factory-messages.xsd"
	}
	validate(t, schema, got2[bes.NSFactory]...)
	validate(t, "bes/gfd108-gridsam/bes-management.xsd", got2[bes.NSManagement]...)
}

func TestWaitForChange(t *testing.T) {
	w := newWorld(t, bes.ServerOptions{}, soap.V11)
	a := w.create(t)
	first, err := w.GetActivityStatuses(t.Context(), &bes.StatusRequest{Activities: []soap.EPR{a}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bes.Status)
	go func() {
		r, err := w.GetActivityStatuses(t.Context(), &bes.StatusRequest{Activities: []soap.EPR{a}, Wait: time.Minute, After: first[0].Status.Details.Revision})
		if err != nil {
			t.Error(err)
			close(done)
			return
		}
		done <- r[0].Status
	}()
	w.svc.Advance(a, bes.Running, "", "")
	if s := <-done; s.State != bes.Running {
		t.Errorf("the wait ended with %+v", s)
	}
}
