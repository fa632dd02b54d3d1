package bestest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

// Service is a bes.Service and a bes.Controller in memory. Its zero value is
// ready; its fields are set before it is used.
type Service struct {
	// BaseURL is the address that references of activities begin with.
	BaseURL string
	// Fail, if not nil, is asked before every operation; its error is the answer.
	Fail func(op string) error
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	mu         sync.Mutex
	stopped    bool
	activities map[string]*activity
	order      []string
	revision   int64
	changed    chan struct{} // closed with each change
}

type activity struct {
	document   []byte
	submission string
	owner      string
	status     bes.Status
	history    []bes.HistoryEntry
	output     map[bes.Stream][]byte
}

var (
	_ bes.Service    = (*Service)(nil)
	_ bes.Controller = (*Service)(nil)
)

func (s *Service) base() string {
	if s.BaseURL == "" {
		return "http://gateway.example/bes"
	}
	return s.BaseURL
}

func (s *Service) now() time.Time {
	if s.Now == nil {
		return time.Now().UTC()
	}
	return s.Now()
}

func (s *Service) failing(op string) error {
	if s.Fail == nil {
		return nil
	}
	return s.Fail(op)
}

// note writes a change down; s.mu is held.
func (s *Service) note(a *activity, event, reason string) {
	s.revision++
	d := a.status.Details
	d.Reason, d.Revision = reason, s.revision
	sub := ""
	if len(a.status.SubStates) > 0 {
		sub = a.status.SubStates[0].Local
	}
	now := s.now()
	switch {
	case a.status.State.Final():
		d.Ended = now
	case a.status.State == bes.Running && d.Started.IsZero():
		d.Started = now
	}
	a.history = append(a.history, bes.HistoryEntry{
		Sequence: len(a.history) + 1, Time: now, State: a.status.State, SubState: sub,
		Site: d.Site, Event: event, Reason: reason,
	})
	if s.changed != nil {
		close(s.changed)
	}
	s.changed = make(chan struct{})
}

// CreateActivity keeps the document; the activity is Pending.
func (s *Service) CreateActivity(ctx context.Context, req *bes.CreateActivityRequest) (*bes.CreateActivityResponse, error) {
	const op = "bestest.CreateActivity"
	if err := s.failing("CreateActivity"); err != nil {
		return nil, err
	}
	job := req.Job
	if job == nil {
		var ps jsdl.Problems
		if job, ps = jsdl.Parse(req.Document, jsdl.Options{}); ps.Err() != nil {
			return nil, ps.Err()
		}
	}
	owner := soap.PrincipalFrom(ctx).Name
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, fail.Errorf(op, fail.NotAccepting, "", "no new activities are taken at present")
	}
	if req.SubmissionID != "" {
		for _, id := range s.order {
			a := s.activities[id]
			switch {
			case a.owner != owner || a.submission != req.SubmissionID:
			case bytes.Equal(a.document, req.Document):
				return &bes.CreateActivityResponse{Activity: bes.NewEPR(s.base(), id)}, nil
			default:
				return nil, fail.Errorf(op, fail.Conflict, req.SubmissionID, "the SubmissionId was used for another document")
			}
		}
	}
	id := fmt.Sprintf("%08d", len(s.order)+1)
	a := &activity{
		document: bytes.Clone(req.Document), submission: req.SubmissionID, owner: owner,
		status: bes.Status{
			State:     bes.Pending,
			SubStates: []xmldoc.Name{{Space: bes.NSPortolan, Local: "Queued"}},
			Details:   &bes.Details{Name: job.Name(), Submitted: s.now()},
		},
		output: map[bes.Stream][]byte{},
	}
	if s.activities == nil {
		s.activities = map[string]*activity{}
	}
	s.activities[id] = a
	s.order = append(s.order, id)
	s.note(a, "submitted", "accepted")
	return &bes.CreateActivityResponse{Activity: bes.NewEPR(s.base(), id)}, nil
}

// Advance puts the activity into a state that the base model allows, with an
// optional sub-state of ours, and panics if it may not be.
func (s *Service) Advance(e soap.EPR, state bes.State, sub, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, _ := bes.ActivityID(e)
	a := s.activities[id]
	if a == nil || !a.status.State.CanBecome(state) || sub != "" && !state.HasSubState(sub) {
		panic(fmt.Sprintf("bestest: %q can't become %s %s", id, state, sub))
	}
	a.status.State, a.status.SubStates = state, nil
	if sub != "" {
		a.status.SubStates = []xmldoc.Name{{Space: bes.NSPortolan, Local: sub}}
	}
	s.note(a, "advanced", reason)
}

// Finish ends a running activity with its exit status and output.
func (s *Service) Finish(e soap.EPR, exit int, stdout, stderr string) {
	s.mu.Lock()
	id, _ := bes.ActivityID(e)
	if a := s.activities[id]; a != nil {
		a.output[bes.Stdout], a.output[bes.Stderr] = []byte(stdout), []byte(stderr)
		a.status.Details.ExitStatus = &exit
	}
	s.mu.Unlock()
	s.Advance(e, bes.Finished, "", fmt.Sprintf("exited with %d", exit))
}

// Document gives what was sent for the activity; nil for an unknown one.
func (s *Service) Document(e soap.EPR) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, _ := bes.ActivityID(e)
	if a := s.activities[id]; a != nil {
		return bytes.Clone(a.document)
	}
	return nil
}

// find gives the caller's activity; s.mu is held.
func (s *Service) find(ctx context.Context, e soap.EPR) (*activity, error) {
	id, ok := bes.ActivityID(e)
	a := s.activities[id]
	if !ok || a == nil || a.owner != soap.PrincipalFrom(ctx).Name {
		return nil, fail.Errorf("bestest.find", fail.NotFound, id, "there is no such activity here")
	}
	return a, nil
}

func snapshot(a *activity) bes.Status {
	st := a.status
	d := *st.Details
	st.Details = &d
	st.SubStates = slices.Clone(st.SubStates)
	return st
}

// GetActivityStatuses gives states; with Wait, once there is news.
func (s *Service) GetActivityStatuses(ctx context.Context, req *bes.StatusRequest) ([]bes.StatusResult, error) {
	if err := s.failing("GetActivityStatuses"); err != nil {
		return nil, err
	}
	var timeout <-chan time.Time
	if req.Wait > 0 {
		t := time.NewTimer(req.Wait)
		defer t.Stop()
		timeout = t.C
	}
	for {
		out, news, changed := s.look(ctx, req)
		if req.Wait <= 0 || news {
			return out, nil
		}
		select {
		case <-changed:
		case <-timeout:
			return out, nil
		case <-ctx.Done():
			return nil, fail.E("bestest.GetActivityStatuses", fail.Unavailable, "", context.Cause(ctx))
		}
	}
}

func (s *Service) look(ctx context.Context, req *bes.StatusRequest) (out []bes.StatusResult, news bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news = len(req.Activities) == 0
	for _, e := range req.Activities {
		r := bes.StatusResult{Activity: e}
		var a *activity
		if a, r.Err = s.find(ctx, e); r.Err != nil {
			news = true
		} else {
			r.Status = snapshot(a)
			news = news || a.status.State.Final() || a.status.Details.Revision > req.After
		}
		out = append(out, r)
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return out, news, s.changed
}

// TerminateActivities cancels at once.
func (s *Service) TerminateActivities(ctx context.Context, list []soap.EPR) ([]bes.Result, error) {
	return s.apply(ctx, "TerminateActivities", list, func(a *activity) bool {
		switch {
		case a.status.State == bes.Cancelled:
			return true
		case a.status.State.Final():
			return false
		}
		a.status.State, a.status.SubStates = bes.Cancelled, nil
		s.note(a, "cancelled", "its end was asked for")
		return true
	})
}

// SuspendActivities suspends what runs and holds what waits.
func (s *Service) SuspendActivities(ctx context.Context, list []soap.EPR) ([]bes.Result, error) {
	return s.apply(ctx, "SuspendActivities", list, func(a *activity) bool {
		if a.status.State.Final() {
			return false
		}
		sub := map[bes.State]string{bes.Pending: "Held", bes.Running: "Suspended"}[a.status.State]
		a.status.SubStates = []xmldoc.Name{{Space: bes.NSPortolan, Local: sub}}
		s.note(a, "suspended", "suspension was asked for")
		return true
	})
}

// ResumeActivities undoes SuspendActivities.
func (s *Service) ResumeActivities(ctx context.Context, list []soap.EPR) ([]bes.Result, error) {
	return s.apply(ctx, "ResumeActivities", list, func(a *activity) bool {
		if a.status.State.Final() {
			return false
		}
		sub := map[bes.State]string{bes.Pending: "Queued", bes.Running: "Executing"}[a.status.State]
		a.status.SubStates = []xmldoc.Name{{Space: bes.NSPortolan, Local: sub}}
		s.note(a, "resumed", "it was asked to go on")
		return true
	})
}

func (s *Service) apply(ctx context.Context, op string, list []soap.EPR, do func(*activity) bool) ([]bes.Result, error) {
	if err := s.failing(op); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []bes.Result
	for _, e := range list {
		r := bes.Result{Activity: e}
		var a *activity
		if a, r.Err = s.find(ctx, e); r.Err == nil && !do(a) {
			r.Err = &bes.StateError{Status: snapshot(a), Cause: fail.Errorf("bestest."+op, fail.Conflict, "", "the activity is %s", a.status.State)}
		}
		out = append(out, r)
	}
	return out, nil
}

// GetActivityDocuments gives documents as they were sent.
func (s *Service) GetActivityDocuments(ctx context.Context, list []soap.EPR) ([]bes.DocumentResult, error) {
	if err := s.failing("GetActivityDocuments"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []bes.DocumentResult
	for _, e := range list {
		r := bes.DocumentResult{Activity: e}
		var a *activity
		if a, r.Err = s.find(ctx, e); r.Err == nil {
			r.Document = bytes.Clone(a.document)
		}
		out = append(out, r)
	}
	return out, nil
}

// GetFactoryAttributesDocument describes two resources and the caller's activities.
func (s *Service) GetFactoryAttributesDocument(ctx context.Context) (*bes.FactoryAttributes, error) {
	if err := s.failing("GetFactoryAttributesDocument"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fa := &bes.FactoryAttributes{
		Basic:                    &bes.BasicResource{ResourceName: "memory", OperatingSystem: "LINUX", OperatingSystemVersion: "6.1", CPUArchitecture: "x86_64", CPUCount: 12, CPUSpeed: 2.5e9, PhysicalMemory: 1 << 35, VirtualMemory: 1 << 36},
		IsAcceptingNewActivities: !s.stopped,
		CommonName:               "memory",
		LongDescription:          "A service in memory, for tests.",
		TotalContainedResources:  2,
		ContainedResources: []bes.BasicResource{
			{ResourceName: "one", OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUCount: 8, PhysicalMemory: 1 << 34},
			{ResourceName: "two", OperatingSystem: "Solaris", CPUArchitecture: "sparc", CPUCount: 4, CPUSpeed: 1.5e9},
		},
		NamingProfiles:           []string{"http://schemas.ggf.org/bes/2006/08/bes/naming/BasicWSAddressing"},
		Extensions:               []string{bes.NSPortolan + "/submission-id", bes.NSPortolan + "/activity-control"},
		LocalResourceManagerType: "http://portolan-project.org/ns/2026/resource-manager/memory",
	}
	for _, id := range slices.Backward(s.order) {
		if s.activities[id].owner == soap.PrincipalFrom(ctx).Name {
			fa.Activities = append(fa.Activities, bes.NewEPR(s.base(), id))
		}
	}
	fa.TotalNumberOfActivities = int64(len(fa.Activities))
	return fa, nil
}

// StopAcceptingNewActivities stops CreateActivity.
func (s *Service) StopAcceptingNewActivities(context.Context) error {
	return s.accept("StopAcceptingNewActivities", false)
}

// StartAcceptingNewActivities undoes StopAcceptingNewActivities.
func (s *Service) StartAcceptingNewActivities(context.Context) error {
	return s.accept("StartAcceptingNewActivities", true)
}

func (s *Service) accept(op string, yes bool) error {
	if err := s.failing(op); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = !yes
	return nil
}

// GetActivityHistory gives every step, oldest first.
func (s *Service) GetActivityHistory(ctx context.Context, e soap.EPR) ([]bes.HistoryEntry, error) {
	if err := s.failing("GetActivityHistory"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.find(ctx, e)
	if err != nil {
		return nil, err
	}
	return slices.Clone(a.history), nil
}

// GetActivityOutput reads what Finish left.
func (s *Service) GetActivityOutput(ctx context.Context, e soap.EPR, stream bes.Stream, offset int64, most int) (*bes.OutputChunk, error) {
	if err := s.failing("GetActivityOutput"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.find(ctx, e)
	if err != nil {
		return nil, err
	}
	all := a.output[stream]
	from := min(offset, int64(len(all)))
	to := min(from+int64(most), int64(len(all)))
	return &bes.OutputChunk{
		Data: bytes.Clone(all[from:to]), Offset: offset,
		More: !a.status.State.Final() || to < int64(len(all)),
	}, nil
}
