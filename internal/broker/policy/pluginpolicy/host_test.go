package pluginpolicy

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// journal is a log that a test reads.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func child(t *testing.T, name string, args ...string) Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{Name: "ours", Dir: t.TempDir(), Settings: Settings{Command: append([]string{self, "a-plug-in", name}, args...), Timeout: 5 * time.Second, StartTimeout: 20 * time.Second}}
}

func mustOpen(t *testing.T, c Config) *Host {
	t.Helper()
	h, err := open(c, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// eventually asks again until it holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (h *Host) pid() int {
	s := h.session()
	if s == nil {
		return 0
	}
	n, _ := strconv.Atoi(s.proc.ID())
	return n
}

func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

func order0(t *testing.T, h *Host, p map[string]float64) policy.Order {
	t.Helper()
	o, err := h.NewOrder(policy.Setting{Name: "plugin:ours", Parameters: p})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func choice0(t *testing.T, h *Host) policy.Choice {
	t.Helper()
	c, err := h.NewChoice(policy.Setting{Name: "plugin:ours"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func threePlaces() []policy.Candidate {
	var out []policy.Candidate
	for i, n := range []string{"a", "b", "c"} {
		out = append(out, policy.Candidate{Place: resourcemodel.Place{Key: resourcemodel.Key{Site: n}}, Order: i, Free: 3 - i, Soft: 1})
	}
	return out
}

func TestDecides(t *testing.T) {
	h := mustOpen(t, child(t, "policy"))
	if v := h.Health(); !v.Up || v.Version != "t" || v.Starts != 1 || v.Problem != "" {
		t.Errorf("%+v", v)
	}
	if d := h.Descriptions(); len(d) != 2 || d[0].Kind != policy.Scheduling || d[1].Kind != policy.Selection || d[0].Name != "plugin:ours" {
		t.Errorf("%+v", d)
	}
	o := order0(t, h, nil)
	if k := o.Key(&policy.Job{ID: "1", Priority: 5, Class: 2}); k != (policy.Key{-2, -5, 0}) {
		t.Errorf("key %v", k)
	}
	if k := order0(t, h, map[string]float64{"sign": -1}).Key(&policy.Job{ID: "1", Priority: 5}); k != (policy.Key{0, 5, 0}) {
		t.Errorf("key %v with a parameter", k)
	}
	jobs := make([]*policy.Job, 2500)
	for i := range jobs {
		jobs[i] = &policy.Job{ID: fmt.Sprint(i), Priority: i, Owner: "ann \xff", Request: &resourcemodel.Request{}}
	}
	for i, k := range o.(policy.Batched).Keys(jobs) {
		if k != (policy.Key{0, -float64(i), 0}) {
			t.Fatalf("key %d is %v", i, k)
		}
	}
	c := choice0(t, h)
	if s := c.Score(&policy.Job{ID: "1"}, threePlaces(), epoch); !slices.Equal(s, []float64{0, 1, 2}) {
		t.Errorf("scores %v", s)
	}
	if s := c.Score(&policy.Job{Owner: "infinite"}, threePlaces(), epoch); s[0] != math.MaxFloat64 {
		t.Errorf("scores %v", s)
	}
	if r := policy.Rank(&policy.Job{Owner: "nan"}, threePlaces(), c, epoch); len(r) != 2 || r[0].Candidate != 2 {
		t.Errorf("ranked %v", r)
	}
	if v := h.Health(); v.Fallbacks != 0 || v.Decisions < 6 {
		t.Errorf("%+v", v)
	}
}

// TestFallsBack: whatever a plug-in does instead of deciding, there is a decision, by
// the built-in policy.
func TestFallsBack(t *testing.T) {
	for _, c := range []struct{ owner, says string }{
		{"slow", "within"}, {"fails", "not today"}, {"few", "2 scores for 3"}, {"crash", "gave no scores"},
	} {
		t.Run(c.owner, func(t *testing.T) {
			config := child(t, "policy")
			if c.owner == "slow" {
				config.Settings.Timeout = 100 * time.Millisecond
			}
			config.Settings.Selection = "first-fit"
			h := mustOpen(t, config)
			if s := choice0(t, h).Score(&policy.Job{Owner: c.owner}, threePlaces(), epoch); !(s[0] > s[1] && s[1] > s[2]) {
				t.Errorf("scores %v", s)
			}
			if v := h.Health(); v.Fallbacks == 0 || !strings.Contains(v.Fallback, c.says) {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestKeysAreOfOne: when the plug-in fails to give keys, the revision changes and the
// keys are the built-in policy's, until it is well again, which changes it once more.
func TestKeysAreOfOne(t *testing.T) {
	for _, owner := range []string{"nan", "few", "fails", "slow"} {
		t.Run(owner, func(t *testing.T) {
			config := child(t, "policy")
			if owner == "slow" {
				config.Settings.Timeout = 100 * time.Millisecond
			}
			config.Settings.Scheduling = "edf"
			h := mustOpen(t, config)
			o := order0(t, h, nil)
			due := &policy.Job{ID: "1", Priority: 7, Submitted: epoch, Deadline: epoch.Add(time.Hour)}
			edf, err := policy.NewOrder(policy.Setting{Name: "edf"})
			if err != nil {
				t.Fatal(err)
			}
			before := o.(policy.Revised).Revision()
			bad := &policy.Job{ID: "2", Owner: owner, Submitted: epoch}
			keys := o.(policy.Batched).Keys([]*policy.Job{due, bad})
			if keys[0] != edf.Key(due) || keys[1] != edf.Key(bad) {
				t.Errorf("keys %v, want %v and %v", keys, edf.Key(due), edf.Key(bad))
			}
			eventually(t, "the plug-in to be trusted again", func() bool { return o.Key(due) == policy.Key{0, -7, 0} })
			if after := o.(policy.Revised).Revision(); after < before+2 {
				t.Errorf("the revision was %d and is %d: it did not change twice", before, after)
			}
		})
	}
}

// TestRestarts: a plug-in that crashes is started again, and policies made before go on.
func TestRestarts(t *testing.T) {
	h := mustOpen(t, child(t, "policy"))
	o, c := order0(t, h, nil), choice0(t, h)
	before := o.(policy.Revised).Revision()
	pid := h.pid()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return gone(pid) })
	c.Score(&policy.Job{}, threePlaces(), epoch) // whoever decides
	eventually(t, "the new start", func() bool { v := h.Health(); return v.Up && v.Starts == 2 })
	// On a busy machine it may be noticed first that it does not answer.
	if v := h.Health(); !strings.Contains(v.Ended, "killed") && !strings.Contains(v.Ended, "calls in a row failed") {
		t.Errorf("%+v", v)
	}
	eventually(t, "the plug-in's scores", func() bool {
		return slices.Equal(c.Score(&policy.Job{}, threePlaces(), epoch), []float64{0, 1, 2})
	})
	if k := o.Key(&policy.Job{Priority: 3}); k != (policy.Key{0, -3, 0}) || o.(policy.Revised).Revision() == before {
		t.Errorf("key %v", k)
	}
}

// TestEndsWhatHangs: after three decisions in a row that did not come, the plug-in is
// ended, and while it is down nothing waits for it.
func TestEndsWhatHangs(t *testing.T) {
	config := child(t, "policy")
	config.Settings.Timeout = 50 * time.Millisecond
	h := mustOpen(t, config)
	c := choice0(t, h)
	pid := h.pid()
	for range maxMisses {
		c.Score(&policy.Job{Owner: "slow"}, threePlaces(), epoch)
	}
	eventually(t, "the end", func() bool { return gone(pid) })
	eventually(t, "the new start", func() bool { return h.Health().Starts == 2 })
	if v := h.Health(); !strings.Contains(v.Ended, "3 calls in a row") {
		t.Errorf("%+v", v)
	}
}

func TestStopped(t *testing.T) {
	config := child(t, "policy")
	config.Settings.Timeout = 50 * time.Millisecond
	h, err := open(config, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pid := h.pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if s := choice0(t, h).Score(&policy.Job{}, threePlaces(), epoch); !slices.Equal(s, []float64{3, 2, 1}) {
		t.Errorf("scores %v", s)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if !gone(pid) {
		t.Error("the plug-in outlives Close")
	}
	if s := choice0(t, h).Score(&policy.Job{}, threePlaces(), epoch); !slices.Equal(s, []float64{3, 2, 1}) {
		t.Errorf("scores %v after Close", s)
	}
}

func TestLitter(t *testing.T) {
	j := &journal{}
	config := child(t, "litter")
	config.Log = slog.New(slog.NewTextHandler(j, nil))
	h := mustOpen(t, config)
	var litter int
	eventually(t, "the litter", func() bool {
		m := regexp.MustCompile(`litter (\d+)`).FindStringSubmatch(j.String())
		if m != nil {
			litter, _ = strconv.Atoi(m[1])
		}
		return m != nil
	})
	if err := syscall.Kill(h.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the litter's end", func() bool { return gone(litter) })
}

func TestNoise(t *testing.T) {
	j := &journal{}
	config := child(t, "noise")
	config.Log = slog.New(slog.NewTextHandler(j, nil))
	c := choice0(t, mustOpen(t, config))
	for range 50 {
		c.Score(&policy.Job{}, threePlaces(), epoch)
	}
	if n := strings.Count(j.String(), "\n"); n > 1000 {
		t.Errorf("%d lines were logged", n)
	}
}

// TestNoPlugin: what is none, or not ours, is an error or a problem that says what to
// change, and the built-in policies decide.
func TestNoPlugin(t *testing.T) {
	refused := func(kind fail.Kind, change func(*Config), says string) {
		t.Helper()
		c := child(t, "policy")
		change(&c)
		h, err := open(c, time.Hour)
		if h != nil {
			_ = h.Close()
		}
		if !fail.Is(err, kind) || !strings.Contains(fail.Sentence(err), says) {
			t.Errorf("%v, want one of the kind %v that says %q", err, kind, says)
		}
	}
	refused(fail.Invalid, func(c *Config) { c.Settings.Command = nil }, "name the program")
	refused(fail.Invalid, func(c *Config) { c.Settings.Command = []string{"x/y"} }, "relative")
	refused(fail.Invalid, func(c *Config) { c.Settings.Command = []string{"/nowhere/at-all"} }, "no program")
	refused(fail.Invalid, func(c *Config) { c.Name = "a b" }, "name")
	refused(fail.Invalid, func(c *Config) { c.Settings.SHA256 = strings.Repeat("0", 64) }, "another file")
	refused(fail.Invalid, func(c *Config) { c.Settings.SHA256 = "x" }, "64 hexadecimal")
	refused(fail.Invalid, func(c *Config) { c.Settings.Timeout = time.Hour }, "at most 10s")
	refused(fail.Invalid, func(c *Config) { c.Settings.Environment = map[string]string{"PLUGIN_X": "1"} }, "leave it out")
	refused(fail.Unsupported, func(c *Config) { c.Settings.Scheduling = "lifo" }, "fairshare")
	refused(fail.Invalid, func(c *Config) { c.Settings.Selection = "best-fit{cpu=-1}" }, "cpu")
	refused(fail.Unsupported, func(c *Config) { *c = child(t, "prints", "1|7|unix|/x|grpc|abc") }, "version \"7\"")

	down := func(says string, c Config) {
		t.Helper()
		h, err := open(c, time.Hour)
		if err != nil {
			t.Errorf("%v", err)
			return
		}
		defer func() { _ = h.Close() }()
		if v := h.Health(); v.Up || !strings.Contains(v.Problem, says) {
			t.Errorf("%+v, want a problem that says %q", v, says)
		}
		if s := choice0(t, h).Score(&policy.Job{}, threePlaces(), epoch); !slices.Equal(s, []float64{3, 2, 1}) {
			t.Errorf("scores %v", s)
		}
		if k := order0(t, h, nil).Key(&policy.Job{Submitted: epoch}); k != (policy.Key{0, float64(epoch.Unix()), 0}) {
			t.Errorf("key %v", k)
		}
	}
	silent := child(t, "silent")
	silent.Settings.StartTimeout = time.Second
	down("shake hands within 1s", silent)
	down("no licence", child(t, "exits"))
	down("handshake is", child(t, "prints", "hello"))
	down("must listen", child(t, "prints", "1|1|unix|/tmp/elsewhere|grpc|abc"))
	down("more than", child(t, "floods"))
	down("neither orders", child(t, "neither"))
	down("\"x\"", child(t, "badly"))
}

func TestSettings(t *testing.T) {
	h := mustOpen(t, child(t, "policy"))
	for _, c := range []struct {
		s    policy.Setting
		kind fail.Kind
		says string
	}{
		{policy.Setting{Name: "plugin:other"}, fail.Unsupported, "plugin:ours"},
		{policy.Setting{Name: "plugin:ours", Parameters: map[string]float64{"sign": 2}}, fail.Invalid, "-1 to 1"},
		{policy.Setting{Name: "plugin:ours", Parameters: map[string]float64{"x": 2}}, fail.Invalid, "sign"},
	} {
		if _, err := h.NewOrder(c.s); !fail.Is(err, c.kind) || !strings.Contains(fail.Sentence(err), c.says) {
			t.Errorf("%s: %v", c.s, err)
		}
	}
	if _, err := mustOpen(t, child(t, "orders")).NewChoice(policy.Setting{Name: "plugin:ours"}); !fail.Is(err, fail.Unsupported) {
		t.Errorf("%v", err)
	}
}

// TestExample is the worked example, as a user would build and configure it.
func TestExample(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "payday")
	if out, err := exec.Command("go", "build", "-o", bin, "./example").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := Config{Name: "payday", Settings: Settings{Command: []string{bin}, Timeout: 5 * time.Second, Settings: map[string]string{"label": "paid"}}}
	h := mustOpen(t, c)
	if v := h.Health(); !v.Up {
		t.Fatalf("%+v", v)
	}
	o, err := h.NewOrder(policy.Setting{Name: "plugin:payday", Parameters: map[string]float64{"age": 3600}})
	if err != nil {
		t.Fatal(err)
	}
	large := &policy.Job{ID: "1", Submitted: epoch, CPUs: 4, Length: 2 * time.Hour}
	small := &policy.Job{ID: "2", Submitted: epoch.Add(time.Hour), CPUs: 1, Length: 30 * time.Minute}
	late := &policy.Job{ID: "3", Submitted: epoch.Add(8 * time.Hour), CPUs: 1, Length: 30 * time.Minute}
	keys := o.(policy.Batched).Keys([]*policy.Job{large, small, late})
	if keys[1].Compare(keys[0]) >= 0 || keys[0].Compare(keys[2]) >= 0 {
		t.Errorf("keys %v: the small one first, the late one last", keys)
	}
	choice, err := h.NewChoice(policy.Setting{Name: "plugin:payday"})
	if err != nil {
		t.Fatal(err)
	}
	cands := threePlaces()
	cands[2].Site = &resourcemodel.Site{Static: &resourcemodel.Static{Labels: []string{"paid"}}}
	if r := policy.Rank(small, cands, choice, epoch); r[0].Candidate != 2 || r[1].Candidate != 0 {
		t.Errorf("ranked %v", r)
	}
	if _, err := h.NewOrder(policy.Setting{Name: "plugin:payday", Parameters: map[string]float64{"age": 30, "liking": 2000}}); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), "age of 1m") {
		t.Errorf("%v", err)
	}
	// Its own refusal of its settings is shown.
	c.Settings.Settings = nil
	if v := mustOpen(t, c).Health(); v.Up || !strings.Contains(v.Problem, "name the label") {
		t.Errorf("%+v", v)
	}
}

func BenchmarkPlugin(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	h, err := Open(Config{Name: "ours", Settings: Settings{Command: []string{self, "a-plug-in", "policy"}, Timeout: 10 * time.Second}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	jobs := make([]*policy.Job, 1000)
	for i := range jobs {
		jobs[i] = &policy.Job{ID: fmt.Sprint(i), Owner: "ann", Submitted: epoch}
	}
	b.Run("Score", func(b *testing.B) {
		c, err := h.NewChoice(policy.Setting{Name: "plugin:ours"})
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			c.Score(jobs[0], threePlaces(), epoch)
		}
	})
	b.Run("Keys1000", func(b *testing.B) {
		o, err := h.NewOrder(policy.Setting{Name: "plugin:ours"})
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			o.(policy.Batched).Keys(jobs)
		}
	})
}
