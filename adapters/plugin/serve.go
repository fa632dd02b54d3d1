package plugin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"gopkg.in/yaml.v3"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/telemetry"
)

// ProtocolVersion is the version of adapter.proto that this package speaks.
const ProtocolVersion = 1

// The handshake tells a plug-in from a program that is started by mistake.
const (
	cookieKey   = "PORTOLAN_ADAPTER_PLUGIN"
	cookieValue = "b7c1e0a4-portolan-adapter"
	pluginName  = "adapter"
)

var handshake = goplugin.HandshakeConfig{ProtocolVersion: ProtocolVersion, MagicCookieKey: cookieKey, MagicCookieValue: cookieValue}

// Serve is the whole main function of a plug-in in Go. It serves the adapter that
// open gives until the gateway has done with it or is gone, and returns then. What
// the adapter logs goes to the gateway's log; standard output and standard error may
// be written to.
//
//	func main() { plugin.Serve(mine.Open) }
func Serve(open func(adapters.Config) (adapters.Adapter, error)) {
	// The log goes to what is standard error now: go-plugin puts pipes of its own
	// into os.Stdout and os.Stderr, which nobody reads any more at the end.
	log, err := telemetry.NewLogger(os.Stderr, "json", "debug")
	if err != nil {
		panic(err) // the words above are the logger's own
	}
	s := newServer(open, log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig:  handshake,
			VersionedPlugins: map[int]goplugin.PluginSet{ProtocolVersion: {pluginName: &wire{server: s}}},
			GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
				return grpc.NewServer(append(o, grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))...)
			},
			Logger: hclog.NewNullLogger(),
		})
	}()
	gone := make(chan struct{})
	go func() { // the gateway holds the other end, and is gone when it is
		defer close(gone)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	select {
	case <-done:
	case <-gone:
	}
	if err := s.close(); err != nil {
		log.Error("could not close the adapter", "error", err)
	}
}

// wire is the plug-in for go-plugin: on both sides the generated service.
type wire struct {
	goplugin.NetRPCUnsupportedPlugin
	server *server // nil in the gateway
}

func (w *wire) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	proto.RegisterAdapterServer(s, w.server)
	return nil
}

func (w *wire) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

// server puts an adapter on the wire.
type server struct {
	proto.UnimplementedAdapterServer
	open func(adapters.Config) (adapters.Adapter, error)
	log  *slog.Logger

	mu      sync.Mutex
	adapter adapters.Adapter
	closed  bool
}

func newServer(open func(adapters.Config) (adapters.Adapter, error), log *slog.Logger) *server {
	return &server{open: open, log: log}
}

func (s *server) Open(_ context.Context, r *proto.OpenRequest) (*proto.OpenReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.adapter != nil || s.closed {
		return nil, statusOf(fail.Errorf("plugin.Open", fail.Conflict, r.Site, "the plug-in has been opened already"))
	}
	settings, err := adapters.ParseSettings(r.SettingsYaml)
	if err != nil {
		return nil, statusOf(err)
	}
	a, err := s.open(adapters.Config{Site: r.Site, Dir: r.Directory, Settings: settings, Log: s.log})
	if err != nil {
		return nil, statusOf(err)
	}
	s.adapter = a
	return &proto.OpenReply{Properties: properties(a.Properties())}, nil
}

// close lets go of the adapter, once.
func (s *server) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	a := s.adapter
	s.adapter = nil
	if a == nil {
		return nil
	}
	return a.Close()
}

func (s *server) Close(context.Context, *proto.CloseRequest) (*proto.CloseReply, error) {
	if err := s.close(); err != nil {
		return nil, statusOf(err)
	}
	return &proto.CloseReply{}, nil
}

// get gives the adapter that is open.
func (s *server) get() (adapters.Adapter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.adapter == nil {
		return nil, statusOf(fail.Errorf("plugin", fail.Unavailable, "", "the plug-in is not open"))
	}
	return s.adapter, nil
}

func (s *server) Check(_ context.Context, r *proto.CheckRequest) (*proto.CheckReply, error) {
	a, err := s.get()
	if err != nil {
		return nil, err
	}
	d, err := readDefinition(r.Definition)
	if err == nil {
		err = a.Check(d)
	}
	return &proto.CheckReply{Problem: problem(err)}, nil
}

func (s *server) Submit(ctx context.Context, r *proto.SubmitRequest) (*proto.SubmitReply, error) {
	a, err := s.get()
	if err != nil {
		return nil, err
	}
	out := &proto.SubmitReply{Placed: make([]*proto.Placed, len(r.Jobs))}
	var jobs []adapters.Job
	var at []int
	for i, j := range r.Jobs {
		d, err := readDefinition(j.Definition)
		if err != nil {
			out.Placed[i] = &proto.Placed{Problem: problem(err)}
			continue
		}
		jobs = append(jobs, adapters.Job{Tag: adapters.Tag(j.Tag), Definition: d, Owner: j.Owner, Account: j.Account, NotAfter: moment(j.NotAfter)})
		at = append(at, i)
	}
	if len(jobs) == 0 {
		return out, nil
	}
	placed := a.Submit(ctx, jobs)
	if len(placed) != len(jobs) {
		return nil, statusOf(fail.Errorf("plugin.Submit", fail.Internal, "", "the adapter answers %d of %d jobs", len(placed), len(jobs)))
	}
	for i, p := range placed {
		out.Placed[at[i]] = &proto.Placed{Handle: p.Handle, Problem: problem(p.Err)}
	}
	return out, nil
}

func (s *server) Find(ctx context.Context, r *proto.FindRequest) (*proto.FindReply, error) {
	a, err := s.get()
	if err != nil {
		return nil, err
	}
	tags := make([]adapters.Tag, len(r.Tags))
	for i, t := range r.Tags {
		tags[i] = adapters.Tag(t)
	}
	found, err := a.Find(ctx, tags)
	if err != nil {
		return nil, statusOf(err)
	}
	out := &proto.FindReply{}
	for t, h := range found {
		out.Found = append(out.Found, &proto.Found{Tag: string(t), Handle: h})
	}
	return out, nil
}

func readHandles(r *proto.HandlesRequest) []adapters.Handle {
	out := make([]adapters.Handle, len(r.Handles))
	for i, h := range r.Handles {
		out[i] = h
	}
	return out
}

func evidences(all []adapters.Evidence) *proto.EvidenceReply {
	out := &proto.EvidenceReply{Evidence: make([]*proto.Evidence, len(all))}
	for i := range all {
		out.Evidence[i] = evidence(&all[i])
	}
	return out
}

func (s *server) Status(ctx context.Context, r *proto.HandlesRequest) (*proto.EvidenceReply, error) {
	a, err := s.get()
	if err != nil {
		return nil, err
	}
	all, err := a.Status(ctx, readHandles(r))
	if err != nil {
		return nil, statusOf(err)
	}
	return evidences(all), nil
}

// act does something to jobs that only some adapters can: do is nil for the others.
func (s *server) act(ctx context.Context, r *proto.HandlesRequest, ability string, choose func(adapters.Adapter) func(context.Context, []adapters.Handle) []error) (*proto.OutcomesReply, error) {
	a, err := s.get()
	if err != nil {
		return nil, err
	}
	do := choose(a)
	if do == nil {
		return nil, statusOf(fail.Errorf("plugin."+ability, fail.Unsupported, "", "the adapter does not claim the ability %s", ability))
	}
	out := &proto.OutcomesReply{}
	for _, err := range do(ctx, readHandles(r)) {
		out.Outcomes = append(out.Outcomes, &proto.Outcome{Problem: problem(err)})
	}
	return out, nil
}

func (s *server) Cancel(ctx context.Context, r *proto.HandlesRequest) (*proto.OutcomesReply, error) {
	return s.act(ctx, r, "Cancel", func(a adapters.Adapter) func(context.Context, []adapters.Handle) []error { return a.Cancel })
}

func (s *server) Extend(ctx context.Context, r *proto.ExtendRequest) (*proto.OutcomesReply, error) {
	a, err := s.get()
	if err != nil {
		return nil, err
	}
	l, ok := a.(adapters.Leaser)
	if !ok || !a.Properties().Lease {
		return nil, statusOf(fail.Errorf("plugin.Lease", fail.Unsupported, "", "the adapter does not claim the ability Lease"))
	}
	xs := make([]adapters.Extension, len(r.Extensions))
	for i, x := range r.Extensions {
		xs[i] = adapters.Extension{Handle: x.GetHandle(), NotAfter: moment(x.GetNotAfter())}
	}
	out := &proto.OutcomesReply{}
	for _, err := range l.Extend(ctx, xs) {
		out.Outcomes = append(out.Outcomes, &proto.Outcome{Problem: problem(err)})
	}
	return out, nil
}

func (s *server) Suspend(ctx context.Context, r *proto.HandlesRequest) (*proto.OutcomesReply, error) {
	return s.act(ctx, r, "Suspend", func(a adapters.Adapter) func(context.Context, []adapters.Handle) []error {
		if x, ok := a.(adapters.Suspender); ok {
			return x.Suspend
		}
		return nil
	})
}

func (s *server) Resume(ctx context.Context, r *proto.HandlesRequest) (*proto.OutcomesReply, error) {
	return s.act(ctx, r, "Suspend", func(a adapters.Adapter) func(context.Context, []adapters.Handle) []error {
		if x, ok := a.(adapters.Suspender); ok {
			return x.Resume
		}
		return nil
	})
}

func (s *server) Hold(ctx context.Context, r *proto.HandlesRequest) (*proto.OutcomesReply, error) {
	return s.act(ctx, r, "Hold", func(a adapters.Adapter) func(context.Context, []adapters.Handle) []error {
		if x, ok := a.(adapters.Holder); ok {
			return x.Hold
		}
		return nil
	})
}

func (s *server) Release(ctx context.Context, r *proto.HandlesRequest) (*proto.OutcomesReply, error) {
	return s.act(ctx, r, "Hold", func(a adapters.Adapter) func(context.Context, []adapters.Handle) []error {
		if x, ok := a.(adapters.Holder); ok {
			return x.Release
		}
		return nil
	})
}

func (s *server) Output(r *proto.OutputRequest, stream grpc.ServerStreamingServer[proto.OutputChunk]) error {
	a, err := s.get()
	if err != nil {
		return err
	}
	which := adapters.Stdout
	switch r.Stream {
	case proto.Stream_STREAM_STDOUT:
	case proto.Stream_STREAM_STDERR:
		which = adapters.Stderr
	case proto.Stream_STREAM_UNSPECIFIED:
		return statusOf(fail.Errorf("plugin.Output", fail.Invalid, "", "the stream is neither standard output nor standard error"))
	}
	reader, err := a.Output(stream.Context(), r.Handle, which, r.Offset)
	if err != nil {
		return statusOf(err)
	}
	defer func() { _ = reader.Close() }()
	// An empty chunk first: the gateway knows then that there is such a stream.
	if err := stream.Send(&proto.OutputChunk{}); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for {
		n, err := reader.Read(buffer)
		if n > 0 {
			if err := stream.Send(&proto.OutputChunk{Data: buffer[:n]}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return statusOf(err)
		}
	}
}

func (s *server) Forget(ctx context.Context, r *proto.ForgetRequest) (*proto.ForgetReply, error) {
	a, err := s.get()
	if err != nil {
		return nil, err
	}
	if err := a.Forget(ctx, r.Handle); err != nil {
		return nil, statusOf(err)
	}
	return &proto.ForgetReply{}, nil
}

func (s *server) Resources(ctx context.Context, _ *proto.ResourcesRequest) (*proto.ResourcesReply, error) {
	a, err := s.get()
	if err != nil {
		return nil, err
	}
	r, err := a.Resources(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	return resources(r), nil
}

func (s *server) Health(context.Context, *proto.HealthRequest) (*proto.HealthReply, error) {
	a, err := s.get()
	if err != nil {
		return nil, err
	}
	return health(a.Health()), nil
}

func (s *server) Watch(_ *proto.WatchRequest, stream grpc.ServerStreamingServer[proto.EvidenceReply]) error {
	a, err := s.get()
	if err != nil {
		return err
	}
	w, ok := a.(adapters.Watcher)
	if !ok {
		return statusOf(fail.Errorf("plugin.Watch", fail.Unsupported, "", "the adapter does not claim the ability Push"))
	}
	if err := stream.Send(&proto.EvidenceReply{}); err != nil { // for a Watcher that never says that it listens
		return err
	}
	ctx, stop := context.WithCancelCause(stream.Context())
	defer stop(nil)
	err = w.Watch(ctx, func(batch []adapters.Evidence) {
		for more := true; more; more = len(batch) > 0 {
			n := min(len(batch), 500) // so that none is beyond what a message holds; no evidence says that it listens
			if err := stream.Send(evidences(batch[:n])); err != nil {
				stop(err)
				return
			}
			batch = batch[n:]
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return statusOf(err)
}

// settingsText gives settings as YAML and as JSON.
func settingsText(s adapters.Settings) (asYAML, asJSON string, err error) {
	var value any
	y, err := yaml.Marshal(s)
	if err == nil {
		err = yaml.Unmarshal(y, &value)
	}
	if err == nil && value == nil {
		return "", "{}", nil
	}
	if err != nil {
		return "", "", fail.Errorf("plugin.Open", fail.Invalid, "settings", "settings: %v", err)
	}
	j, err := json.Marshal(value)
	if err != nil {
		return "", "", fail.Errorf("plugin.Open", fail.Invalid, "settings", "settings: they can't be written as JSON: %v", err)
	}
	return string(y), string(j), nil
}
