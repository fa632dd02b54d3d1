package pluginpolicy

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/portolan-project/portolan/internal/broker/policy/pluginpolicy/proto"
)

// children are programs that a test starts as plug-ins: this test's own, run again
// with the name of one. "policy" does as the owner of a job says.
var children = map[string]func(args []string){
	"policy": func([]string) { serve(&naughty{}) },
	"silent": func([]string) { block() },
	"exits":  func([]string) { fmt.Fprintln(os.Stderr, "no licence for this"); os.Exit(3) },
	"prints": func(args []string) { fmt.Println(strings.Join(args, " ")); block() },
	"floods": func([]string) {
		_, _ = io.CopyN(os.Stdout, zeros{}, 1<<20)
		block()
	},
	"noise": func([]string) {
		go func() {
			for {
				if _, err := fmt.Fprintln(os.Stderr, strings.Repeat("noise ", 50)); err != nil {
					return
				}
			}
		}()
		serve(&naughty{})
	},
	"litter": func([]string) {
		c := exec.Command("/bin/sleep", "1000")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			panic(err)
		}
		fmt.Fprintf(os.Stderr, "litter %d\n", c.Process.Pid)
		serve(&naughty{})
	},
	"neither": func([]string) { serve(&naughty{claims: &proto.OpenReply{}}) },
	"orders":  func([]string) { serve(&naughty{claims: &proto.OpenReply{Orders: true}}) },
	"badly": func([]string) {
		serve(&naughty{claims: &proto.OpenReply{Orders: true, Parameters: []*proto.Parameter{{Name: "x", Default: 7, Most: 3}}}})
	},
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// block waits for the end of the gateway, or for being killed.
func block() { _, _ = io.Copy(io.Discard, os.Stdin) }

// naughty orders by priority alone and likes the last place best, but misbehaves as
// the job's owner says.
type naughty struct {
	proto.UnimplementedPolicyServer
	claims *proto.OpenReply
}

func (n *naughty) Open(context.Context, *proto.OpenRequest) (*proto.OpenReply, error) {
	if n.claims != nil {
		return n.claims, nil
	}
	return &proto.OpenReply{Version: "t", What: "misbehaves", Orders: true, Chooses: true, Parameters: []*proto.Parameter{{Name: "sign", Default: 1, Least: -1, Most: 1}}}, nil
}

func (n *naughty) Check(context.Context, *proto.CheckRequest) (*proto.CheckReply, error) {
	return &proto.CheckReply{}, nil
}

// misbehave does what an owner's name says; ok is that nothing was to be done.
func misbehave(ctx context.Context, owner string) (ok bool, err error) {
	switch owner {
	case "slow":
		<-ctx.Done()
		return false, ctx.Err()
	case "crash":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "fails":
		return false, fmt.Errorf("not today")
	}
	return true, nil
}

func (n *naughty) Keys(ctx context.Context, r *proto.KeysRequest) (*proto.KeysReply, error) {
	out := &proto.KeysReply{}
	for _, j := range r.Jobs {
		if ok, err := misbehave(ctx, j.Owner); !ok {
			return nil, err
		}
		k := &proto.Key{First: -r.Parameters["sign"] * float64(j.Priority)}
		switch j.Owner {
		case "nan":
			k.Second = math.NaN()
		case "few":
			continue
		}
		out.Keys = append(out.Keys, k)
	}
	return out, nil
}

func (n *naughty) Score(ctx context.Context, r *proto.ScoreRequest) (*proto.ScoreReply, error) {
	if ok, err := misbehave(ctx, r.Job.Owner); !ok {
		return nil, err
	}
	out := &proto.ScoreReply{}
	for i := range r.Candidates {
		out.Scores = append(out.Scores, r.Parameters["sign"]*float64(i))
	}
	switch r.Job.Owner {
	case "few":
		out.Scores = out.Scores[1:]
	case "infinite":
		out.Scores[0] = math.Inf(1)
	case "nan":
		out.Scores[0] = math.NaN()
	}
	return out, nil
}

func (n *naughty) Health(context.Context, *proto.HealthRequest) (*proto.HealthReply, error) {
	return &proto.HealthReply{}, nil
}

func (n *naughty) Close(context.Context, *proto.CloseRequest) (*proto.CloseReply, error) {
	return &proto.CloseReply{}, nil
}

type served struct {
	goplugin.NetRPCUnsupportedPlugin
	server proto.PolicyServer
}

func (s served) GRPCServer(_ *goplugin.GRPCBroker, g *grpc.Server) error {
	proto.RegisterPolicyServer(g, s.server)
	return nil
}

func (served) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func serve(p proto.PolicyServer) {
	go func() { // the gateway holds the other end, and is gone when it is
		block()
		os.Exit(0)
	}()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{ProtocolVersion: ProtocolVersion, MagicCookieKey: cookieKey, MagicCookieValue: cookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{ProtocolVersion: {pluginName: served{server: p}}},
		GRPCServer:       goplugin.DefaultGRPCServer,
		Logger:           hclog.NewNullLogger(),
	})
}

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "a-plug-in" {
		if f := children[os.Args[2]]; f != nil {
			f(os.Args[3:])
			os.Exit(0)
		}
		os.Exit(64)
	}
	goleak.VerifyTestMain(m)
}
