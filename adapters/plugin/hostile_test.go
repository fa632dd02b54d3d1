package plugin

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
)

// hostile opens an adapter whose plug-in answers as the stub says.
func hostile(t *testing.T, stub *stubServer, change ...func(*host)) (adapters.Adapter, *local) {
	t.Helper()
	w := fake.NewWorld(0)
	t.Cleanup(w.Close)
	l := new(local)
	a, err := l.open(t, adapters.Config{}, func() proto.AdapterServer {
		stub.AdapterServer = serving(w, fake.Options{})()
		return stub
	}, change...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a, l
}

var twoJobs = []adapters.Job{{Tag: "a", Definition: script("exit 0")}, {Tag: "b", Definition: script("exit 0")}}

func TestWrongCounts(t *testing.T) {
	a, _ := hostile(t, &stubServer{
		submit: func(context.Context, *proto.SubmitRequest) (*proto.SubmitReply, error) {
			return &proto.SubmitReply{Placed: []*proto.Placed{{Handle: []byte("x")}}}, nil
		},
		status: func(context.Context, *proto.HandlesRequest) (*proto.EvidenceReply, error) {
			return &proto.EvidenceReply{Evidence: make([]*proto.Evidence, 3)}, nil
		},
		cancel: func(context.Context, *proto.HandlesRequest) (*proto.OutcomesReply, error) {
			return &proto.OutcomesReply{}, nil
		},
	})
	for _, p := range a.Submit(t.Context(), twoJobs) {
		if !fail.Is(p.Err, fail.Uncertain) {
			t.Errorf("too few answers of Submit give %+v", p)
		}
	}
	if e, err := a.Status(t.Context(), []adapters.Handle{[]byte("x"), []byte("y")}); err == nil {
		t.Errorf("too many answers of Status give %v", e)
	}
	errs := a.Cancel(t.Context(), []adapters.Handle{[]byte("x")})
	if len(errs) != 1 || adapters.ClassOf(errs[0]) != adapters.Doubtful {
		t.Errorf("too few answers of Cancel give %v", errs)
	}
}

func TestBadHandlesOfAPlugin(t *testing.T) {
	for name, h := range map[string][]byte{"none": nil, "huge": make([]byte, maxHandle+1)} {
		a, _ := hostile(t, &stubServer{
			submit: func(context.Context, *proto.SubmitRequest) (*proto.SubmitReply, error) {
				return &proto.SubmitReply{Placed: []*proto.Placed{{Handle: h}, nil}}, nil
			},
			find: func(context.Context, *proto.FindRequest) (*proto.FindReply, error) {
				return &proto.FindReply{Found: []*proto.Found{{Tag: "a", Handle: h}}}, nil
			},
		})
		for _, p := range a.Submit(t.Context(), twoJobs) {
			if !fail.Is(p.Err, fail.Uncertain) {
				t.Errorf("a handle that is %s gives %v, %v", name, p.Handle, p.Err)
			}
		}
		if f, err := a.Find(t.Context(), []adapters.Tag{"a"}); err == nil {
			t.Errorf("Find with a handle that is %s gives %v", name, f)
		}
	}
	a, _ := hostile(t, &stubServer{find: func(context.Context, *proto.FindRequest) (*proto.FindReply, error) {
		return &proto.FindReply{Found: []*proto.Found{{Tag: "b", Handle: []byte("x")}}}, nil
	}})
	if f, err := a.Find(t.Context(), []adapters.Tag{"a"}); err == nil {
		t.Errorf("Find gives %v of a tag that nobody asked for", f)
	}
	if errs := a.Cancel(t.Context(), []adapters.Handle{make([]byte, maxHandle+1)}); !fail.Is(errs[0], fail.Invalid) {
		t.Errorf("a handle that is too long gives %v", errs[0])
	}
}

// Evidence that can't be true says nothing.
func TestImpossibleEvidence(t *testing.T) {
	one, zero := int32(1), int32(0)
	for name, e := range map[string]*proto.Evidence{
		"nil":               nil,
		"phase":             {Tag: "a", Phase: 99},
		"negative phase":    {Tag: "a", Phase: -1},
		"no tag":            {Phase: proto.Phase_PHASE_EXITED, ExitStatus: &zero},
		"bad tag":           {Tag: "../a", Phase: proto.Phase_PHASE_EXITED, ExitStatus: &zero},
		"exit of running":   {Tag: "a", Phase: proto.Phase_PHASE_RUNNING, ExitStatus: &one},
		"no exit":           {Tag: "a", Phase: proto.Phase_PHASE_EXITED},
		"exit and signal":   {Tag: "a", Phase: proto.Phase_PHASE_EXITED, ExitStatus: &one, Signal: "SIGTERM"},
		"exit, not run":     {Tag: "a", Phase: proto.Phase_PHASE_EXITED, ExitStatus: &one, NotRun: true},
		"status of lost":    {Tag: "a", Phase: proto.Phase_PHASE_LOST, ExitStatus: &one},
		"unknown, no cause": {Tag: "a"},
	} {
		got := readEvidence(e, adapters.Handle("h"))
		if got.Phase != adapters.Unknown || got.Err == nil || string(got.Handle) != "h" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	many := &proto.Evidence{
		Tag: "a", Phase: proto.Phase_PHASE_STOPPED, Reason: strings.Repeat("é", maxSentence), Progress: math.NaN(), Memory: -5,
		Hosts: make([]string, 2*maxList), Attributes: map[string]string{},
	}
	for i := range 1000 {
		many.Attributes[strings.Repeat("k", i)] = strings.Repeat("v", 2*maxAttribute)
	}
	got := readEvidence(many, adapters.Handle("h"))
	if got.Phase != adapters.Stopped || len(got.Reason) > maxSentence || got.Progress != 0 || got.Usage.Memory != 0 ||
		len(got.Hosts) > maxList || len(got.Attributes) != adapters.MaxAttributes {
		t.Errorf("evidence beyond all bounds is taken as %+v", got)
	}
	for _, v := range got.Attributes {
		if len(v) > maxAttribute {
			t.Errorf("an attribute of %d bytes is taken", len(v))
		}
	}
}

func TestHugeReply(t *testing.T) {
	a, l := hostile(t, &stubServer{submit: func(context.Context, *proto.SubmitRequest) (*proto.SubmitReply, error) {
		return &proto.SubmitReply{Placed: []*proto.Placed{{Handle: make([]byte, maxMessage)}, {Handle: []byte("x")}}}, nil
	}})
	for _, p := range a.Submit(t.Context(), twoJobs) {
		if !fail.Is(p.Err, fail.Uncertain) {
			t.Errorf("a reply beyond all bounds gives %v", p.Err)
		}
	}
	eventually(t, "the new start", up(a))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lives < 2 {
		t.Error("a plug-in whose submission was not answered goes on, and so might the submission")
	}
}

func TestPanicsAndErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want fail.Kind
	}{
		{status.Error(codes.Unknown, "Exception calling application: boom"), fail.Uncertain},
		{status.Error(codes.InvalidArgument, "no"), fail.Invalid},
		{status.Error(codes.Unimplemented, "no"), fail.Unsupported},
		{status.Error(codes.ResourceExhausted, "no"), fail.Uncertain},
		{status.Error(codes.Unavailable, "no"), fail.Uncertain},
		{statusOf(fail.Errorf("x", fail.Unavailable, "s", "later")), fail.Unavailable},
		{statusOf(fail.Errorf("x", fail.NotAccepting, "", "full")), fail.NotAccepting},
		{statusOf(errors.New("private")), fail.Internal},
	} {
		a, _ := hostile(t, &stubServer{submit: func(context.Context, *proto.SubmitRequest) (*proto.SubmitReply, error) { return nil, c.err }})
		if p := a.Submit(t.Context(), twoJobs); !fail.Is(p[1].Err, c.want) {
			t.Errorf("%v gives %v, want %v", c.err, p[1].Err, c.want)
		}
	}
}

// Every kind survives the wire, and one that we do not know claims nothing.
func TestKinds(t *testing.T) {
	for _, k := range fail.Kinds() {
		err := fail.Errorf("x", k, "the subject", "a sentence")
		for how, got := range map[string]error{"problem": failure("Op", problem(err)), "status": refusal("Op", statusOf(err))} {
			if !fail.Is(got, k) || fail.Sentence(got) != "a sentence" || adapters.ClassOf(got) != adapters.ClassOf(err) {
				t.Errorf("%v as a %s becomes %v", k, how, got)
			}
		}
	}
	for _, k := range []proto.Kind{0, 77, -1} {
		if got := failure("Op", &proto.Problem{Kind: k}); adapters.ClassOf(got) != adapters.Doubtful || fail.Sentence(got) == "" {
			t.Errorf("the kind %d becomes %v", k, got)
		}
	}
}

func TestOutputs(t *testing.T) {
	forever := func(chunk []byte) *stubServer {
		return &stubServer{output: func(_ *proto.OutputRequest, s grpc.ServerStreamingServer[proto.OutputChunk]) error {
			for {
				if err := s.Send(&proto.OutputChunk{Data: chunk}); err != nil {
					return err
				}
			}
		}}
	}
	for name, c := range map[string]struct {
		stub *stubServer
		most int64
	}{
		"endless":   {forever(make([]byte, 1000)), 1 << 20},
		"nothing":   {forever(nil), 1 << 20},
		"too large": {forever(make([]byte, maxChunk+1)), 1 << 30},
		"hangs": {&stubServer{output: func(_ *proto.OutputRequest, s grpc.ServerStreamingServer[proto.OutputChunk]) error {
			<-s.Context().Done()
			return s.Context().Err()
		}}, 1},
	} {
		a, _ := hostile(t, c.stub, func(h *host) { h.settings.CallTimeout = 200 * time.Millisecond })
		setMaxOutput(a, c.most)
		r, err := a.Output(t.Context(), adapters.Handle("h"), adapters.Stdout, 0)
		if err != nil {
			continue
		}
		n, err := io.Copy(io.Discard, r)
		if err == nil || n > c.most {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Evidence that nobody asked for is bounded, and wrong evidence is not passed on.
func TestWatchOfGarbage(t *testing.T) {
	good := &proto.Evidence{Tag: "good", Handle: []byte("h"), Phase: proto.Phase_PHASE_RUNNING}
	a, _ := hostile(t, &stubServer{watch: func(_ *proto.WatchRequest, s grpc.ServerStreamingServer[proto.EvidenceReply]) error {
		for _, e := range []*proto.Evidence{nil, {Tag: "x"}, {Tag: "x", Phase: 50}, {Tag: "x", Handle: make([]byte, maxHandle+1), Phase: proto.Phase_PHASE_RUNNING}, good} {
			if err := s.Send(&proto.EvidenceReply{Evidence: []*proto.Evidence{e}}); err != nil {
				return err
			}
		}
		return nil // and ends, as it must not
	}})
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	var seen atomic.Int32
	err := a.(adapters.Watcher).Watch(ctx, func(all []adapters.Evidence) {
		for _, e := range all {
			if e.Tag != "good" {
				t.Errorf("passed on: %+v", e)
			}
		}
		if seen.Add(1) == 2 { // it is asked again when it ends
			stop()
		}
	})
	if err == nil || seen.Load() < 2 {
		t.Errorf("Watch ends with %v after %d", err, seen.Load())
	}
}

func TestHugeResources(t *testing.T) {
	a, _ := hostile(t, &stubServer{assets: func(context.Context, *proto.ResourcesRequest) (*proto.ResourcesReply, error) {
		return &proto.ResourcesReply{Environments: []*proto.Environment{
			nil, {Id: "x", Cpus: -4, Memory: math.MaxInt64, Nodes: math.MaxInt64, CpuSpeed: math.Inf(1), HostNames: make([]string, 3*maxList)},
		}, Shares: []*proto.Share{nil, {Slots: -1}}}, nil
	}})
	r, err := a.Resources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := r.Environments[1]
	if e.CPUs != 0 || e.Memory < 0 || e.CPUSpeed != 0 || len(e.HostNames) > adapters.MaxHostNames || r.Shares[1].Slots != 0 {
		t.Errorf("%+v", r)
	}
	many, _ := hostile(t, &stubServer{assets: func(context.Context, *proto.ResourcesRequest) (*proto.ResourcesReply, error) {
		return &proto.ResourcesReply{Shares: make([]*proto.Share, maxList+1)}, nil
	}})
	if _, err := many.Resources(t.Context()); err == nil {
		t.Error("resources without bound are taken")
	}
}

// A plug-in that was opened once is remembered while it can't be started.
func TestClaimsAreRemembered(t *testing.T) {
	w := fake.NewWorld(0)
	t.Cleanup(w.Close)
	memory := t.TempDir() + "/claims.json"
	for i, want := range []bool{true, true, false} {
		l := new(local)
		file := memory
		if i > 0 {
			l.refusing(errBroken)
		}
		if !want {
			file = t.TempDir() + "/other"
		}
		a, err := l.open(t, adapters.Config{}, serving(w, fake.Options{}), func(h *host) { h.memory = file })
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := a.(adapters.Holder); ok != want || a.Properties().Push != want {
			t.Errorf("opened for the %d. time it claims %+v", i, a.Properties())
		}
		if i > 0 && a.Health().Problem != "the program is broken for now" {
			t.Errorf("Health: %+v", a.Health())
		}
		l.refusing(nil)
		eventually(t, "the start", up(a))
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A plug-in that does not answer for its health is ended, though its connection lives.
func TestNoHealth(t *testing.T) {
	var mute atomic.Bool
	a, l := hostile(t, &stubServer{health: func(ctx context.Context, _ *proto.HealthRequest) (*proto.HealthReply, error) {
		if mute.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return &proto.HealthReply{Path: "p"}, nil
	}}, func(h *host) { h.every, h.patient = 20*time.Millisecond, 20*time.Millisecond })
	mute.Store(true)
	eventually(t, "the new start", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.lives > 1
	})
	mute.Store(false)
	eventually(t, "health", func() bool { return a.Health().Path == "p" })
	if r := strings.Join(a.Health().Remarks, " "); !strings.Contains(r, "health") {
		t.Errorf("remarks: %q", r)
	}
}

// setMaxOutput changes what an adapter claims.
func setMaxOutput(a adapters.Adapter, n int64) {
	a.(interface{ itself() *host }).itself().claims.MaxOutput = n
}

func (h *host) itself() *host { return h }
