package plugin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
)

// children are programs that a test starts as plug-ins: this test's own, run again
// with the name of one. Some are good, most are not.
var children = map[string]func(args []string){
	"fake": func([]string) { Serve(openFake) },
	// A job that the plug-in starts badly: it holds the plug-in's pipes and group.
	"litter": func([]string) {
		c := exec.Command("/bin/sleep", "1000")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			panic(err)
		}
		fmt.Fprintf(os.Stderr, "[WARN] litter %d\n", c.Process.Pid)
		Serve(openFake)
	},
	"refuses": func([]string) {
		Serve(func(c adapters.Config) (adapters.Adapter, error) {
			return nil, fail.Errorf("x", fail.Invalid, "colour", "colour: write one that there is, site %s", c.Site)
		})
	},
	"panics": func([]string) {
		Serve(func(adapters.Config) (adapters.Adapter, error) { panic("the disk is made of cheese") })
	},
	"silent": func([]string) { block() },
	"exits":  func([]string) { fmt.Fprintln(os.Stderr, "[ERROR] no licence for this"); os.Exit(3) },
	"prints": func(args []string) { fmt.Println(strings.Join(args, " ")); block() },
	"floods": func([]string) { flood(os.Stdout) },
	"noise":  func([]string) { go flood(os.Stderr); Serve(openFake) },
	"chatter": func([]string) {
		Serve(func(c adapters.Config) (adapters.Adapter, error) {
			go chatter()
			return openFake(c)
		})
	},
	"newline": func([]string) { // a line without end before the handshake
		_, _ = io.CopyN(os.Stdout, zeros{}, 1<<20)
		block()
	},
	"speaks": func([]string) { speak() },
	"environ": func([]string) {
		fmt.Fprintf(os.Stderr, "[ERROR] MINE=%s SECRET=%s PATH=%v\n", os.Getenv("MINE"), os.Getenv("SECRET_OF_THE_GATEWAY"), os.Getenv("PATH") != "")
		os.Exit(1)
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

func flood(w io.Writer) {
	line := []byte(strings.Repeat("flood ", 20) + "\n")
	for {
		if _, err := w.Write(line); err != nil {
			return
		}
	}
}

// chatter writes to what go-plugin puts into os.Stdout, and ends without a line's end.
func chatter() {
	for range 10_000 {
		fmt.Println("chatter of a library")
	}
	fmt.Print("and no more")
}

// speak listens and shakes hands without any gRPC behind it.
func speak() {
	path := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s")
	lis, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	fmt.Printf("1|1|unix|%s|grpc|\n", path)
	for {
		c, err := lis.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "220 mail.example.org ESMTP\r\n")
		_, _ = bufio.NewReader(c).ReadString('\n')
	}
}

// openFake serves a fake site, which lives as long as the program.
func openFake(c adapters.Config) (adapters.Adapter, error) {
	var s struct {
		Slots int  `yaml:"slots"`
		Crash bool `yaml:"crash"`
	}
	if err := c.Settings.Decode(&s); err != nil {
		return nil, err
	}
	c.Log.Info("the fake site is open", "dir", c.Dir)
	w := fake.NewWorld(s.Slots)
	w.Inject(func(op string, tag adapters.Tag) fake.Fault {
		switch {
		case op == "submit" && strings.HasPrefix(string(tag), "crash"):
			die()
		case op == "submit" && strings.HasPrefix(string(tag), "hang"), op == "status" && strings.HasPrefix(string(tag), "slow"):
			return fake.Fault{Delay: time.Hour}
		}
		return fake.Fault{}
	})
	return w.Open(fake.Options{}), nil
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// childIfAsked runs a child instead of tests.
func childIfAsked() {
	if len(os.Args) > 2 && os.Args[1] == "a-plug-in" {
		if f := children[os.Args[2]]; f != nil {
			f(os.Args[3:])
			os.Exit(0)
		}
		os.Exit(64)
	}
}

// command is the setting that runs a child.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, a := range append([]string{self, "a-plug-in", name}, args...) {
		fmt.Fprintf(&b, "%q, ", a)
	}
	return "command: [" + b.String() + "]\n"
}

// stubServer answers as its functions say; the rest is a good adapter's.
type stubServer struct {
	proto.AdapterServer
	submit func(context.Context, *proto.SubmitRequest) (*proto.SubmitReply, error)
	status func(context.Context, *proto.HandlesRequest) (*proto.EvidenceReply, error)
	find   func(context.Context, *proto.FindRequest) (*proto.FindReply, error)
	cancel func(context.Context, *proto.HandlesRequest) (*proto.OutcomesReply, error)
	output func(*proto.OutputRequest, grpc.ServerStreamingServer[proto.OutputChunk]) error
	watch  func(*proto.WatchRequest, grpc.ServerStreamingServer[proto.EvidenceReply]) error
	assets func(context.Context, *proto.ResourcesRequest) (*proto.ResourcesReply, error)
	health func(context.Context, *proto.HealthRequest) (*proto.HealthReply, error)
}

func (s *stubServer) Submit(ctx context.Context, r *proto.SubmitRequest) (*proto.SubmitReply, error) {
	if s.submit != nil {
		return s.submit(ctx, r)
	}
	return s.AdapterServer.Submit(ctx, r)
}

func (s *stubServer) Status(ctx context.Context, r *proto.HandlesRequest) (*proto.EvidenceReply, error) {
	if s.status != nil {
		return s.status(ctx, r)
	}
	return s.AdapterServer.Status(ctx, r)
}

func (s *stubServer) Find(ctx context.Context, r *proto.FindRequest) (*proto.FindReply, error) {
	if s.find != nil {
		return s.find(ctx, r)
	}
	return s.AdapterServer.Find(ctx, r)
}

func (s *stubServer) Cancel(ctx context.Context, r *proto.HandlesRequest) (*proto.OutcomesReply, error) {
	if s.cancel != nil {
		return s.cancel(ctx, r)
	}
	return s.AdapterServer.Cancel(ctx, r)
}

func (s *stubServer) Output(r *proto.OutputRequest, stream grpc.ServerStreamingServer[proto.OutputChunk]) error {
	if s.output != nil {
		return s.output(r, stream)
	}
	return s.AdapterServer.Output(r, stream)
}

func (s *stubServer) Watch(r *proto.WatchRequest, stream grpc.ServerStreamingServer[proto.EvidenceReply]) error {
	if s.watch != nil {
		return s.watch(r, stream)
	}
	return s.AdapterServer.Watch(r, stream)
}

func (s *stubServer) Resources(ctx context.Context, r *proto.ResourcesRequest) (*proto.ResourcesReply, error) {
	if s.assets != nil {
		return s.assets(ctx, r)
	}
	return s.AdapterServer.Resources(ctx, r)
}

func (s *stubServer) Health(ctx context.Context, r *proto.HealthRequest) (*proto.HealthReply, error) {
	if s.health != nil {
		return s.health(ctx, r)
	}
	return s.AdapterServer.Health(ctx, r)
}
