package pluginpolicy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/portolan-project/portolan/internal/broker/policy/pluginpolicy/proto"
	"github.com/portolan-project/portolan/internal/fail"
)

// ProtocolVersion is the version of policy.proto that this package speaks.
const ProtocolVersion = 1

// The handshake tells a plug-in from a program that is started by mistake.
const (
	cookieKey   = "PORTOLAN_POLICY_PLUGIN"
	cookieValue = "3f0c2d18-portolan-policy"
	pluginName  = "policy"
)

const maxMessage = 16 << 20

// wire is the plug-in for go-plugin, on our side.
type wire struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (wire) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("the gateway serves no policy")
}

func (wire) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

// session is one life of a plug-in's program: from its start to its end.
type session struct {
	api  proto.PolicyClient
	proc *process
	logs *logWriter
	end  func() // what is to be done after Close, until the end

	mu     sync.Mutex
	why    string // we ended it for this
	misses int    // decisions in a row that gave nothing, and silence about its health
}

// kill ends the session for a reason that an administrator will read.
func (s *session) kill(format string, args ...any) {
	s.mu.Lock()
	if s.why == "" {
		s.why = fmt.Sprintf(format, args...)
	}
	s.mu.Unlock()
	_ = s.proc.Kill(context.Background())
}

// reason says why the session is over; valid after its end.
func (s *session) reason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.why != "":
		return s.why
	case s.proc.err == nil:
		return "it ended by itself"
	}
	what := "it ended with " + s.proc.err.Error()
	if said := s.logs.tail(); said != "" {
		what += "; it last said: " + said
	}
	return clip(what, maxText)
}

// count takes note of how a call went, and ends a plug-in that fails again and again.
func (s *session) count(err error) {
	s.mu.Lock()
	if err == nil {
		s.misses = 0
	} else {
		s.misses++
	}
	over := s.misses >= maxMisses
	s.mu.Unlock()
	if over {
		s.kill("%d calls in a row failed, the last because %s", maxMisses, clip(err.Error(), maxText/2))
	}
}

// close lets the plug-in close, and ends it if it does not within the time.
func (s *session) close(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	_, _ = s.api.Close(ctx, &proto.CloseRequest{}) // it ends either way
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.end()
	}()
	select {
	case <-finished:
	case <-ctx.Done():
		_ = s.proc.Kill(context.Background())
		<-finished
	}
	<-s.proc.done
}

// launch starts the program and shakes hands.
func launch(ctx context.Context, settings *Settings, dir string, log *slog.Logger) (*session, error) {
	const op = "pluginpolicy.Open"
	path, err := settings.find()
	if err != nil {
		return nil, err
	}
	// A socket's path has 107 bytes, so it can't be in just any directory.
	parent := os.TempDir()
	if len(parent) > 40 {
		parent = "/tmp"
	}
	sockets, err := os.MkdirTemp(parent, "portolan-policy-")
	if err != nil {
		return nil, fail.Errorf(op, fail.Unavailable, "", "no directory for the plug-in's socket could be made").Because(err)
	}
	p := newProcess(path, settings.Command, dir, settings.environ())
	logs := newLogWriter(log)
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{ProtocolVersion: ProtocolVersion, MagicCookieKey: cookieKey, MagicCookieValue: cookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{ProtocolVersion: {pluginName: wire{}}},
		RunnerFunc:       runWith(p),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		StartTimeout:     settings.StartTimeout,
		SkipHostEnv:      true,
		Logger:           hclog.NewNullLogger(),
		Stderr:           logs, SyncStdout: newLogWriter(log), SyncStderr: newLogWriter(log),
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: sockets},
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
			// No connections are brokered, so nobody may make us keep any.
			grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				if strings.HasPrefix(method, "/plugin.GRPCBroker/") {
					return nil, status.Error(codes.Unimplemented, "policies broker no connections")
				}
				return next(ctx, desc, cc, method, opts...)
			}),
		},
	})
	s := &session{proc: p, logs: logs, end: func() {
		client.Kill()
		_ = os.RemoveAll(sockets)
	}}
	// Nothing of what follows heeds the context, but all of it ends with the program.
	stopped := context.AfterFunc(ctx, func() { _ = p.Kill(context.Background()) })
	defer stopped()
	conn, err := connect(client)
	if err != nil {
		s.end()
		return nil, startError(ctx, p, settings, logs, err)
	}
	s.api = proto.NewPolicyClient(conn)
	return s, nil
}

func connect(client *goplugin.Client) (*grpc.ClientConn, error) {
	protocol, err := client.Client()
	if err != nil {
		return nil, err
	}
	raw, err := protocol.Dispense(pluginName)
	if err != nil {
		return nil, err
	}
	conn, ok := raw.(*grpc.ClientConn)
	if !ok {
		return nil, errors.New("it is no gRPC plug-in")
	}
	return conn, nil
}

// startError says why a program is no plug-in.
func startError(ctx context.Context, p *process, settings *Settings, logs *logWriter, err error) error {
	const op = "pluginpolicy.Open"
	name := clip(strings.Join(settings.Command, " "), 200)
	if !p.started() {
		return fail.Errorf(op, fail.Invalid, "command", "command: %s could not be started; see that it is a program for this machine", name).Because(err)
	}
	<-p.done
	<-p.shook
	if v, ok := errors.AsType[*versionError](p.bad); ok {
		return fail.Errorf(op, fail.Unsupported, "command", "the plug-in %s can't be used: %v", name, v)
	}
	what := err.Error()
	if ctx.Err() != nil || strings.Contains(what, "timeout") {
		what = fmt.Sprintf("it did not shake hands within %v", settings.StartTimeout)
	} else if p.bad != nil {
		what = p.bad.Error()
	}
	if said := logs.tail(); said != "" {
		what += "; it said: " + said
	}
	return fail.Errorf(op, fail.Unavailable, "command", "the plug-in %s did not start: %s", name, clip(what, maxText/2)).Because(err)
}
