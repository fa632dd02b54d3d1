// Command payday is a Portolan policy as a program of its own, and a pattern for
// others. It orders jobs so that small ones go before large ones, which waiting makes
// up for, and it likes places with a label, say those that were paid for already.
//
// It uses nothing of the gateway's but the generated package of policy.proto, which a
// program elsewhere makes with protoc for itself.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/portolan-project/portolan/internal/broker/policy/pluginpolicy/proto"
)

// payday is the policy. It keeps nothing but its settings, so that the same request
// has the same answer, and calls may come from many threads.
type payday struct {
	proto.UnimplementedPolicyServer
	label string
}

func (p *payday) Open(_ context.Context, r *proto.OpenRequest) (*proto.OpenReply, error) {
	if p.label = r.Settings["label"]; p.label == "" {
		return nil, fmt.Errorf("settings: name the label of the places that are liked, as label")
	}
	return &proto.OpenReply{
		Version: "1.0", What: "Small jobs first, at places with the label " + p.label + ".", Orders: true, Chooses: true,
		Parameters: []*proto.Parameter{
			{Name: "age", What: "the wait that makes up for one CPU-hour", Default: 600, Least: 1, Most: 86400, Duration: true},
			{Name: "liking", What: "free slots that the label is worth", Default: 10, Least: 0, Most: 1e6},
		},
	}, nil
}

func (p *payday) Check(_ context.Context, r *proto.CheckRequest) (*proto.CheckReply, error) {
	if r.Parameters["liking"] > 1000 && r.Parameters["age"] < 60 {
		return &proto.CheckReply{Problem: "a liking above 1000 needs an age of 1m at least"}, nil
	}
	return &proto.CheckReply{}, nil
}

// Keys: submission plus what the size is worth. All waits grow alike, so that the
// order of two jobs stays as it is.
func (p *payday) Keys(_ context.Context, r *proto.KeysRequest) (*proto.KeysReply, error) {
	out := &proto.KeysReply{}
	for _, j := range r.Jobs {
		hours := 1.0
		if j.Length != nil {
			hours = j.Length.AsDuration().Hours()
		}
		submitted := float64(j.Submitted.AsTime().Unix())
		out.Keys = append(out.Keys, &proto.Key{First: submitted + hours*float64(max(j.Cpus, 1))*r.Parameters["age"], Second: submitted})
	}
	return out, nil
}

func (p *payday) Score(_ context.Context, r *proto.ScoreRequest) (*proto.ScoreReply, error) {
	out := &proto.ScoreReply{}
	for _, c := range r.Candidates {
		score := float64(c.Free) - c.Load
		if slices.Contains(c.Labels, p.label) {
			score += r.Parameters["liking"]
		}
		out.Scores = append(out.Scores, score)
	}
	return out, nil
}

func (p *payday) Health(context.Context, *proto.HealthRequest) (*proto.HealthReply, error) {
	return &proto.HealthReply{}, nil
}

func (p *payday) Close(context.Context, *proto.CloseRequest) (*proto.CloseReply, error) {
	return &proto.CloseReply{}, nil
}

// wire is the plug-in for go-plugin.
type wire struct {
	goplugin.NetRPCUnsupportedPlugin
	server proto.PolicyServer
}

func (w wire) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	proto.RegisterPolicyServer(s, w.server)
	return nil
}

func (wire) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("this is the plug-in's side")
}

func main() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig:  goplugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "PORTOLAN_POLICY_PLUGIN", MagicCookieValue: "3f0c2d18-portolan-policy"},
			VersionedPlugins: map[int]goplugin.PluginSet{1: {"policy": wire{server: &payday{}}}},
			GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
				return grpc.NewServer(append(o, grpc.MaxRecvMsgSize(16<<20), grpc.MaxSendMsgSize(16<<20))...)
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
}
