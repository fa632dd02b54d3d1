package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
)

// session is one life of a plug-in's program: from its start to its end.
type session struct {
	api  proto.AdapterClient
	log  *slog.Logger
	done <-chan struct{} // closed when nothing of it is left
	stop func()          // ends it at once
	end  func()          // what is to be done after Close, until done
	how  func() string   // how it ended, valid after done

	mu  sync.Mutex
	why string // we ended it for this
}

// kill ends the session for a reason that an administrator will read.
func (s *session) kill(format string, args ...any) {
	s.mu.Lock()
	if s.why == "" {
		s.why = fmt.Sprintf(format, args...)
	}
	s.mu.Unlock()
	s.stop()
}

// reason says why the session is over.
func (s *session) reason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != "" {
		return s.why
	}
	return s.how()
}

// close lets the plug-in close, and ends it if it does not within the time.
func (s *session) close(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if _, err := s.api.Close(ctx, &proto.CloseRequest{}); err != nil {
		s.log.Debug("the plug-in did not close well", "error", err)
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.end()
	}()
	select {
	case <-finished:
	case <-ctx.Done():
		s.stop()
		<-finished
	}
	<-s.done
}

// launch starts the program and shakes hands.
func launch(ctx context.Context, settings *Settings, dir string, log *slog.Logger) (*session, error) {
	const op = "plugin.Open"
	path, err := settings.find()
	if err != nil {
		return nil, err
	}
	// A socket's path has 107 bytes, so it can't be in the site's directory, nor in
	// some temporary ones.
	place := os.TempDir()
	if len(place) > 40 {
		place = "/tmp"
	}
	sockets, err := os.MkdirTemp(place, "portolan-plugin-")
	if err != nil {
		return nil, fail.Errorf(op, fail.Unavailable, "", "no directory for the plug-in's socket could be made").Because(err)
	}
	if settings.Directory != "" {
		dir = settings.Directory
	}
	p := newProcess(path, settings.Command, dir, settings.environ((&exec.Cmd{}).Environ()), sockets, *settings.TLS)
	logs := newLogWriter(log)
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{ProtocolVersion: {pluginName: &wire{}}},
		RunnerFunc:       runWith(p),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         *settings.TLS,
		StartTimeout:     settings.StartTimeout,
		SkipHostEnv:      true,
		Logger:           hclog.NewNullLogger(),
		Stderr:           logs, SyncStdout: newLogWriter(log), SyncStderr: newLogWriter(log),
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: sockets},
		GRPCDialOptions:  dialOptions(),
	})
	s := &session{log: log, done: p.done, stop: func() { _ = p.Kill(context.Background()) }, end: func() {
		client.Kill()
		_ = os.RemoveAll(sockets)
	}, how: func() string { return ending(p, logs) }}

	// Nothing of what follows heeds the context, but all of it ends with the program.
	stopped := context.AfterFunc(ctx, s.stop)
	defer stopped()
	conn, err := connect(client)
	if err != nil {
		client.Kill()
		_ = os.RemoveAll(sockets)
		return nil, startError(ctx, p, settings, logs, err)
	}
	s.api = proto.NewAdapterClient(conn)
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

func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		// No connections are brokered, so nobody may make us keep any.
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			if strings.HasPrefix(method, "/plugin.GRPCBroker/") {
				return nil, status.Error(codes.Unimplemented, "adapters broker no connections")
			}
			return next(ctx, desc, cc, method, opts...)
		}),
	}
}

// startError says why a program is no plug-in.
func startError(ctx context.Context, p *process, settings *Settings, logs *logWriter, err error) error {
	const op = "plugin.Open"
	name := strings.Join(settings.Command, " ")
	if !p.started() {
		return fail.Errorf(op, fail.Invalid, "command", "command: %s could not be started: %s", clip(name, 200), cause(err)).Because(err)
	}
	<-p.done
	<-p.shook
	if v, ok := errors.AsType[*versionError](p.bad); ok {
		return fail.Errorf(op, fail.Unsupported, "command", "the plug-in %s can't be used: %v", clip(name, 200), v)
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
	return fail.Errorf(op, fail.Unavailable, "command", "the plug-in %s did not start: %s", clip(name, 200), clip(what, 2000)).Because(err)
}

// cause gives the innermost error, which is the system's own sentence.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// ending says how a program ended.
func ending(p *process, logs *logWriter) string {
	what := "it ended by itself"
	if p.err != nil {
		what = "it ended with " + p.err.Error()
	}
	if said := logs.tail(); said != "" && p.err != nil {
		what += "; it last said: " + said
	}
	return clip(what, 2000)
}
