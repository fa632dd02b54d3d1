package main

import (
	"bufio"
	"errors"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"portolan": main})
}

// TestScripts runs testdata/*.txt, one behaviour each. The scripts have these
// commands beside the usual ones:
//
//	gateway NAME FLAG…       start a gateway on $WORK/NAME and wait until it is ready;
//	                         PORTOLAN_ENDPOINT, BASE and ADDR say where, its log is NAME.log
//	etcd VAR                 start an etcd of its own; VAR says where
//	halt NAME                SIGTERM; it must exit with 0
//	kill9 NAME               SIGKILL
//	hup NAME                 SIGHUP
//	exits CODE CMD ARG…      run CMD; its exit code must be CODE
//	eventually RE CMD ARG…   run CMD again and again until it succeeds and what it writes matches
//	setline VAR N            set VAR to line N of the last standard output
//	setmatch VAR RE WHAT     set VAR to the first group of RE in stdout, stderr or a file
//	get PATH CODE            HTTP GET of BASE/PATH, the body on standard output
//	agree NAME [EPR]         offer by the template NAME, unchanged; KEY is the agreement's key, standard
//	                         output has it, or the refusal with "!"; with EPR a pending one
//	agreed KEY RE            wait until the properties of an agreement match
//	neighbours               an API with peers that are known; PORTOLAN_ENDPOINT says where
//	promiser SITE…           a gateway in memory that takes agreements, with the templates of
//	                         sites or one that never changes; PORTOLAN_ENDPOINT says where
//	judge KEY STATE [AMOUNT] how the guarantees of one of its agreements stand, and the penalty
//	turn KEY EVENT           what happens to the agreement
//	reason KEY TEXT          it was to end for that reason
//	called ADDRESS KEY       where the decision on the last offer is to be told
//	peerendpoint             a peer endpoint over TLS; PEER says where, PIN its fingerprint
//
// ACCOUNT is a local account as which jobs of peers can run.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			e.Setenv("XDG_CONFIG_HOME", "")
			e.Setenv("XDG_STATE_HOME", "")
			e.Setenv("XDG_DATA_HOME", "")
			account, err := guestAccount(e.WorkDir)
			if err != nil {
				return err
			}
			e.Setenv("ACCOUNT", account)
			e.Values["gateways"] = map[string]*gateway{}
			return os.MkdirAll(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"gateway":      startGateway,
			"etcd":         startEtcd,
			"halt":         stopGateway,
			"kill9":        killGateway,
			"hup":          hupGateway,
			"exits":        exits,
			"eventually":   eventually,
			"setline":      setLine,
			"setmatch":     setMatch,
			"get":          get,
			"neighbours":   startNeighbours,
			"peerendpoint": startPeerEndpoint,
			"strange":      strange,
			"promiser":     startPromiser,
			"judge":        judge,
			"turn":         turn,
			"reason":       reason,
			"called":       called,
			"agree":        agree,
			"agreed":       agreed,
		},
	})
}

// startEtcd starts what an operator would run for the gateway.
func startEtcd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: etcd VAR")
	}
	cfg := embed.NewConfig()
	cfg.Dir = ts.MkAbs("etcd-of-others")
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}, nil
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	ts.Check(err)
	ts.Defer(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(patient):
		ts.Fatalf("etcd is not ready")
	}
	ts.Setenv(args[0], e.Clients[0].Addr().String())
}

// gateway is a process of "portolan serve".
type gateway struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan error
}

const patient = 2 * time.Minute

func startGateway(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: gateway NAME FLAG…")
	}
	name := args[0]
	log, err := os.OpenFile(ts.MkAbs(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	path, _, _ := strings.Cut(ts.Getenv("PATH"), string(filepath.ListSeparator))
	flags := []string{"serve", "--dev", "--listen", "127.0.0.1:0"}
	replica := slices.Contains(args, "--replica") // it keeps nothing and has no sites
	if !replica {
		flags = append(flags, "--data", ts.MkAbs(name))
	}
	if !replica && !slices.Contains(args, "--config") && !slices.Contains(args, "--sites") {
		flags = append(flags, "--sites", "shell") // whatever else this machine may have
	}
	cmd := exec.Command(filepath.Join(path, "portolan"), append(flags, args[1:]...)...)
	cmd.Dir, cmd.Stderr = ts.MkAbs("."), log
	for _, v := range []string{"HOME", "PATH", "TMPDIR"} {
		cmd.Env = append(cmd.Env, v+"="+ts.Getenv(v))
	}
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	g := &gateway{cmd: cmd, log: log, done: make(chan error, 1)}
	ts.Value("gateways").(map[string]*gateway)[name] = g
	ts.Defer(func() {
		if g.cmd != nil {
			g.cmd.Process.Kill()
			<-g.done
		}
		log.Close()
	})
	ready := make(chan bool, 1)
	go func() {
		in := bufio.NewScanner(out)
		up := false
		for in.Scan() && !up {
			key, value, _ := strings.Cut(in.Text(), ": ")
			switch key {
			case "bes":
				ts.Setenv("PORTOLAN_ENDPOINT", value)
				base := strings.TrimSuffix(value, "/bes")
				ts.Setenv("BASE", base)
				ts.Setenv("ADDR", strings.TrimPrefix(base, "http://"))
			case "agreement":
				ts.Setenv("AGREEMENT", value)
			case "peer":
				ts.Setenv("PEER", value)
			case "ready":
				up = true
				ready <- true
			}
		}
		if !up {
			ready <- false
		}
		_, _ = io.Copy(io.Discard, out)
		g.done <- cmd.Wait()
	}()
	select {
	case up := <-ready:
		if !up {
			ts.Fatalf("the gateway ended before it was ready:\n%s", ts.ReadFile(name+".log"))
		}
	case <-time.After(patient):
		ts.Fatalf("the gateway is not ready:\n%s", ts.ReadFile(name+".log"))
	}
}

func end(ts *testscript.TestScript, neg bool, args []string, signal syscall.Signal) error {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: halt NAME or kill9 NAME")
	}
	g := ts.Value("gateways").(map[string]*gateway)[args[0]]
	if g == nil || g.cmd == nil {
		ts.Fatalf("no gateway %s runs", args[0])
	}
	ts.Check(g.cmd.Process.Signal(signal))
	select {
	case err := <-g.done:
		g.cmd = nil
		return err
	case <-time.After(patient):
		ts.Fatalf("the gateway does not end:\n%s", ts.ReadFile(args[0]+".log"))
		return nil
	}
}

func stopGateway(ts *testscript.TestScript, neg bool, args []string) {
	if err := end(ts, neg, args, syscall.SIGTERM); err != nil {
		ts.Fatalf("%v\n%s", err, ts.ReadFile(args[0]+".log"))
	}
}

func killGateway(ts *testscript.TestScript, neg bool, args []string) {
	if err := end(ts, neg, args, syscall.SIGKILL); err == nil {
		ts.Fatalf("killed, it exits with 0")
	}
}

func hupGateway(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hup NAME")
	}
	g := ts.Value("gateways").(map[string]*gateway)[args[0]]
	if g == nil || g.cmd == nil {
		ts.Fatalf("no gateway %s runs", args[0])
	}
	ts.Check(g.cmd.Process.Signal(syscall.SIGHUP))
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE CMD ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		e, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = e.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, not %d", got, want)
	}
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually RE CMD ARG…")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(patient); ; {
		if ts.Exec(args[1], args[2:]...) == nil && re.MatchString(ts.ReadFile("stdout")+ts.ReadFile("stderr")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no match in time; last:\n%s%s", ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func setLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setline VAR N")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	lines := strings.Split(ts.ReadFile("stdout"), "\n")
	if n < 1 || n > len(lines) || lines[n-1] == "" {
		ts.Fatalf("no line %d", n)
	}
	ts.Setenv(args[0], lines[n-1])
}

func setMatch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: setmatch VAR RE WHAT")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile(args[2]))
	if len(m) < 2 {
		ts.Fatalf("no match of %s", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// guestAccount gives an account as which a gateway below the directory can run jobs: root's can run
// them as others, which must get there, and any other's as itself alone.
func guestAccount(dir string) (string, error) {
	if os.Geteuid() == 0 {
		return "nobody", os.Chmod(filepath.Dir(dir), 0o711)
	}
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.Username, nil
}
