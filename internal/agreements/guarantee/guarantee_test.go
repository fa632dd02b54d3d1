package guarantee

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/rogpeppe/go-internal/txtar"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// held reads what stands in a wsag:CustomServiceLevel, wsag:QualifyingCondition or wsag:ValueExpression.
func held(t testing.TB, inner string) *etree.Element {
	t.Helper()
	d, err := xmldoc.ReadBytes(fmt.Appendf(nil, `<w:Held xmlns:w=%q xmlns:p=%q>%s</w:Held>`, agreement.NS, agreement.NSPortolan, inner), xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return d.Root()
}

// term reads "kpi", "level", "condition", "scope", "obligated", "penalty" and "reward" lines.
func term(t testing.TB, text string) *agreement.Guarantee {
	t.Helper()
	g := &agreement.Guarantee{Name: "soon"}
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "":
		case "kpi":
			g.KPIName = rest
		case "level":
			g.Level = held(t, rest)
		case "condition":
			g.QualifyingCondition = held(t, rest)
		case "obligated":
			g.Obligated = agreement.Obligation(rest)
		case "scope":
			for s := range strings.FieldsSeq(rest) {
				g.Scopes = append(g.Scopes, agreement.Scope{ServiceName: s})
			}
		case "penalty", "reward":
			f := strings.SplitN(rest, " ", 3)
			c := agreement.Compensation{Unit: f[1], Expression: held(t, f[2])}
			if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				c.Count = n
			} else {
				c.Interval = f[0]
			}
			if key == "penalty" {
				g.Values.Penalties = append(g.Values.Penalties, c)
			} else {
				g.Values.Rewards = append(g.Values.Rewards, c)
			}
		default:
			t.Fatalf("a line %q", line)
		}
	}
	return g
}

func compiled(t testing.TB, text string) *Guarantee {
	t.Helper()
	g, err := Compile(term(t, text), Variables{"deadline": agreement.OfTime(clock("14:00")), "site": agreement.OfString("alpha")})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// clock is a time of the one day of these tests.
func clock(s string) time.Time {
	at, err := time.Parse("2006-01-02T15:04:05", "2026-11-29T"+s)
	if err != nil {
		at, err = time.Parse("2006-01-02T15:04", "2026-11-29T"+s)
	}
	if err != nil {
		panic(err)
	}
	return at
}

// tell writes an assessment as one line.
func tell(a Assessment) string {
	s := fmt.Sprintf("%d %s %s %s: %s", a.Number, a.At.Format("15:04:05.999999999"), a.Service, a.State, a.Evidence)
	for _, d := range a.Due {
		s += fmt.Sprintf(" [%s %s %s]", d.Sort, d.Value, d.Unit)
	}
	return s + "\n"
}

// play runs a script; each line is "at TIME", "due", "restart", "danger TIME START FINISH RUN", or
// "event SEQUENCE TIME SERVICE KIND…".
func play(t *testing.T, g *Guarantee, script string) string {
	t.Helper()
	out := g.String() + "\n"
	s := g.New(clock("12:00"))
	for line := range strings.Lines(script) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var as []Assessment
		switch f[0] {
		case "at":
			s, as = g.At(s, clock(f[1]))
		case "due":
			if d := g.Due(s); d.IsZero() {
				out += "nothing is due\n"
			} else {
				out += "due " + d.Format("15:04:05.999999999") + "\n"
			}
			continue
		case "restart":
			b, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			var again State
			if err := json.Unmarshal(b, &again); err != nil {
				t.Fatal(err)
			}
			if c, _ := json.Marshal(again); string(c) != string(b) {
				t.Errorf("the state is\n%s\nand was\n%s", c, b)
			}
			s = again
			continue
		case "danger":
			var e Estimate
			at := func(s string) (t time.Time) {
				if s != "-" {
					t = clock(s)
				}
				return t
			}
			e.Start, e.Finish = at(f[2]), at(f[3])
			e.Run, _ = time.ParseDuration(f[4])
			risk, by := g.Danger(s, clock(f[1]), "run", e)
			out += "danger " + string(risk)
			if !by.IsZero() {
				out += " by " + by.Format("15:04:05.999999999")
			}
			out += "\n"
			continue
		case "event":
			s, as = g.Apply(s, event(t, f[1:]))
		default:
			t.Fatalf("a line %q", line)
		}
		out += "> " + strings.Join(f, " ") + ": " + string(s.State) + "\n"
		for _, a := range as {
			out += tell(a)
		}
	}
	return out
}

func event(t testing.TB, f []string) Event {
	t.Helper()
	n, err := strconv.ParseUint(f[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	e := Event{Sequence: n, Time: clock(f[1]), Service: strings.Trim(f[2], "*")}
	for _, k := range kinds {
		if strings.ReplaceAll(string(k), " ", "-") == f[3] {
			e.Kind = k
		}
	}
	for _, w := range f[4:] {
		if i, err := strconv.ParseInt(w, 10, 64); err == nil {
			e.Slots = i
		} else if strings.Contains(w, ":") {
			e.Until = clock(w)
		} else {
			e.Outcome = Outcome(w)
		}
	}
	if err := e.Check(); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestScenarios: promises, what happened, and what was found.
func TestScenarios(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal(err)
	}
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out := &txtar.Archive{Comment: a.Comment}
		for i := 0; i+1 < len(a.Files); i++ {
			f := a.Files[i]
			title, ok := strings.CutSuffix(f.Name, ".term")
			if !ok {
				continue
			}
			script := a.Files[i+1]
			got := play(t, compiled(t, string(f.Data)), string(script.Data))
			want := ""
			if i+2 < len(a.Files) {
				want = string(a.Files[i+2].Data)
			}
			if got != want && !*update {
				t.Errorf("%s: %s: said\n%s", name, title, got)
			}
			out.Files = append(out.Files, f, script, txtar.File{Name: title + ".said", Data: []byte(got)})
		}
		if *update {
			if err := os.WriteFile(name, txtar.Format(out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	ok := "kpi queueWait\nlevel <p:atMost>PT10M</p:atMost>\n"
	for name, c := range map[string]struct {
		term, want string
		kind       fail.Kind
	}{
		"kpi":                 {"kpi luck\nlevel <p:atMost>1</p:atMost>", "queueWait", fail.Unsupported},
		"language":            {"kpi queueWait\nlevel <x:r xmlns:x='urn:x'/>", "urn:x", fail.Unsupported},
		"no level":            {"kpi queueWait", "service level", fail.Invalid},
		"nothing watched":     {"level <p:Equal><p:Variable name='site'/><p:Value type='string'>a</p:Value></p:Equal>", "nothing that is watched", fail.Invalid},
		"target":              {"level <p:atMost>PT10M</p:atMost>", "KPI", fail.Invalid},
		"target in condition": {ok + "condition <p:atMost>PT10M</p:atMost>", "KPI", fail.Invalid},
		"obligated":           {ok + "obligated Nobody", "Nobody", fail.Invalid},
		"short interval":      {ok + "penalty PT59S credit 1", "a minute", fail.Invalid},
		"long interval":       {ok + "penalty P9999D credit 1", "ten years", fail.Invalid},
		"interval":            {ok + "penalty hourly credit 1", "PT10M", fail.Invalid},
		"neither":             {ok + "penalty 0 credit 1", "either", fail.Invalid},
		"negative count":      {ok + "penalty -1 credit 1", "Count", fail.Invalid},
		"high count":          {ok + "penalty 1000001 credit 1", "Count", fail.Invalid},
		"unit":                {ok + "penalty 1 " + strings.Repeat("u", maxUnit+1) + " 1", "ValueUnit", fail.Invalid},
		"amount":              {ok + "penalty 1 credit much", "number", fail.Invalid},
		"amount language":     {ok + "penalty 1 credit <x:r xmlns:x='urn:x'/>", "urn:x", fail.Unsupported},
		"each interval":       {ok + "penalty PT1H credit <p:Divide><p:Variable name='queueWait'/><p:Value type='duration'>PT1H</p:Value></p:Divide>", "Count", fail.Invalid},
		"reward of return":    {"kpi slotsAvailable\nlevel <p:atLeast>1</p:atLeast>\nreward 1 credit 1", "TimeInterval", fail.Invalid},
		"compensations":       {ok + strings.Repeat("penalty 1 credit 1\n", maxCompensations+1), "penalties", fail.Invalid},
		"services":            {ok + "scope" + manyServices(maxServices+1), "services", fail.Invalid},
	} {
		_, err := Compile(term(t, c.term), Variables{"site": agreement.OfString("alpha")})
		if !fail.Is(err, c.kind) || !strings.Contains(fail.Sentence(err), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Compile(term(t, ok), Variables{"success": agreement.OfBoolean(true)}); !fail.Is(err, fail.Invalid) {
		t.Errorf("a variable has a KPI's name: %v", err)
	}
	for _, kept := range []string{
		ok + "penalty PT1M credit 1", ok + "penalty 1000000 credit 1", ok + "penalty 1 " + strings.Repeat("u", maxUnit) + " 1",
		ok + strings.Repeat("penalty 1 credit 1\n", maxCompensations), ok + "scope" + manyServices(maxServices),
	} {
		if _, err := Compile(term(t, kept), nil); err != nil {
			t.Error(err)
		}
	}
}

func manyServices(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " s%d", i)
	}
	return b.String()
}

// promises are those that the properties are tried on.
var promises = []string{
	"kpi queueWait\nlevel <p:atMost>PT30M</p:atMost>\nscope a b\npenalty 1 credit 5\nreward 2 credit 1",
	"kpi startTime\nlevel <p:LessOrEqual><p:Variable name='startTime'/><p:Variable name='deadline'/></p:LessOrEqual>\nscope a b\npenalty PT1H credit 2\nreward PT1H credit 1",
	"kpi finishTime\nlevel <p:LessOrEqual><p:Variable name='finishTime'/><p:Variable name='deadline'/></p:LessOrEqual>\nscope a\npenalty 1 credit <p:Divide><p:Subtract><p:Variable name='finishTime'/><p:Variable name='deadline'/></p:Subtract><p:Value type='duration'>PT1H</p:Value></p:Divide>",
	"kpi runTime\nlevel <p:atMost>PT45M</p:atMost>\nscope a b\ncondition <p:Variable name='success'/>\npenalty 1 credit 5",
	"kpi success\nlevel <p:And><p:Variable name='success'/><p:LessOrEqual><p:Variable name='queueWait'/><p:Value type='duration'>PT1H</p:Value></p:LessOrEqual></p:And>\nscope a b\npenalty 1 credit 5",
	"kpi availability\nlevel <p:atLeast>0.9</p:atLeast>\nscope a\npenalty 1 credit 5\nreward 1 credit 2",
	"kpi slotsAvailable\nlevel <p:atLeast>6</p:atLeast>\npenalty 1 credit 5\npenalty PT20M credit 1\nreward PT20M credit 1",
}

// aHistory draws a well-formed one: for each service a job or a window, then the end.
func aHistory(t *rapid.T) []Event {
	var es []Event
	at := func() time.Time { // after the state's first Now, at which what comes is judged as it comes
		return clock("12:00").Add(time.Duration(rapid.IntRange(1, 300).Draw(t, "minute")) * time.Minute)
	}
	for _, service := range []string{"a", "b"} {
		var steps []Event
		add := func(e Event) { steps = append(steps, e) }
		if rapid.Bool().Draw(t, "window") {
			from := at()
			until := from.Add(time.Duration(rapid.IntRange(1, 120).Draw(t, "length")) * time.Minute)
			es = append(es, Event{Time: from, Service: service, Kind: WindowOpened, Slots: 8, Until: until})
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				es = append(es, Event{Time: at(), Service: service, Kind: rapid.SampledFrom([]Kind{CapacityDown, CapacityUp}).Draw(t, "kind"), Slots: rapid.Int64Range(0, 9).Draw(t, "slots")})
			}
			continue
		}
		add(Event{Kind: Submitted})
		for range rapid.IntRange(0, 6).Draw(t, "steps") {
			add(Event{Kind: rapid.SampledFrom([]Kind{Started, Suspended, Resumed, Lost, Restarted}).Draw(t, "kind")})
		}
		if rapid.Bool().Draw(t, "ends") {
			add(Event{Kind: Ended, Outcome: rapid.SampledFrom([]Outcome{Finished, Failed, Cancelled}).Draw(t, "outcome")})
		}
		now := clock("12:00")
		for _, e := range steps {
			now = now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "later")) * time.Minute)
			e.Time, e.Service = now, service
			es = append(es, e)
		}
	}
	if rapid.Bool().Draw(t, "completed") {
		es = append(es, Event{Time: clock("18:00"), Kind: Completed})
	}
	for i := range es {
		es[i].Sequence = uint64(i + 1)
	}
	return es
}

// TestOrderMakesNoDifference: events in any order, each as often as it likes, give the
// same findings; whether time goes on in one leap or in steps, with each event heard of
// before its time has passed; and after a restart from JSON at any step.
func TestOrderMakesNoDifference(t *testing.T) {
	var gs []*Guarantee
	for _, p := range promises {
		gs = append(gs, compiled(t, p))
	}
	end := clock("23:00")
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.SampledFrom(gs).Draw(t, "promise")
		es := aHistory(t)
		one := g.New(clock("12:00"))
		var found []Assessment
		for _, e := range es {
			var as []Assessment
			one, as = g.Apply(one, e)
			found = append(found, as...)
		}
		one, as := g.At(one, end)
		found = append(found, as...)

		two := g.New(clock("12:00"))
		var again []Assessment
		shuffled := rapid.Permutation(es).Draw(t, "order")
		shuffled = append(shuffled, shuffled[:rapid.IntRange(0, len(shuffled)).Draw(t, "twice")]...)
		for len(shuffled) > 0 {
			e := shuffled[0]
			shuffled = shuffled[1:]
			two, as = g.Apply(two, e)
			again = append(again, as...)
			// Time goes on as far as nothing is missing before it.
			until := end
			for _, later := range shuffled {
				if later.Time.Before(until) {
					until = later.Time
				}
			}
			if rapid.Bool().Draw(t, "step") {
				two, as = g.At(two, until.Add(-time.Duration(rapid.IntRange(1, 60).Draw(t, "before"))*time.Minute))
				again = append(again, as...)
			}
			if rapid.Bool().Draw(t, "restart") {
				b, err := json.Marshal(two)
				if err != nil {
					t.Fatal(err)
				}
				two = State{}
				if err := json.Unmarshal(b, &two); err != nil {
					t.Fatal(err)
				}
			}
		}
		two, as = g.At(two, end)
		again = append(again, as...)
		if len(found)+len(again) > 0 && !reflect.DeepEqual(found, again) {
			t.Fatalf("found\n%+v\nand in another order\n%+v", found, again)
		}
		a, _ := json.Marshal(one)
		b, _ := json.Marshal(two)
		if string(a) != string(b) {
			t.Fatalf("the state is\n%s\nand in another order\n%s", a, b)
		}
		for i, a := range found {
			if a.Number != uint64(i+1) || i > 0 && a.At.Before(found[i-1].At) {
				t.Fatalf("assessments do not follow each other: %+v", found)
			}
		}
	})
}

// TestViolationStays: however late events come and whatever they say, time only moves
// forward, numbers have no gaps, and a promise that can't be kept again stays broken.
func TestViolationStays(t *testing.T) {
	var gs []*Guarantee
	for _, p := range promises {
		gs = append(gs, compiled(t, p))
	}
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.SampledFrom(gs).Draw(t, "promise")
		s := g.New(clock("12:00"))
		n := uint64(0)
		broken := map[string]bool{}
		check := func(next State, as []Assessment) {
			if next.Now.Before(s.Now) {
				t.Fatalf("time went back from %v to %v", s.Now, next.Now)
			}
			for _, a := range as {
				if n++; a.Number != n || a.Evidence == "" || a.At.After(next.Now) {
					t.Fatalf("assessment %d is %+v", n, a)
				}
				for _, d := range a.Due {
					if d.Value.Sign() <= 0 {
						t.Fatalf("due is %v", d)
					}
				}
			}
			if next.Number != n {
				t.Fatalf("%d assessments and not %d", next.Number, n)
			}
			for service, v := range next.Verdicts {
				broken[service] = broken[service] || v.State == agreement.Violated
			}
			s = next
			for service := range broken {
				if broken[service] && !g.momentary && (s.Verdicts[service].State != agreement.Violated || s.State != agreement.Violated) {
					t.Fatalf("%s was broken and is %+v", service, s)
				}
			}
			if d := g.Due(s); !d.IsZero() && !d.After(s.Now) {
				t.Fatalf("due is %v, at %v", d, s.Now)
			}
		}
		es := rapid.Permutation(aHistory(t)).Draw(t, "order")
		for _, e := range es {
			check(g.Apply(s, e))
			before := clock("12:00").Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "now")) * time.Minute)
			was, _ := json.Marshal(s)
			next, as := g.At(s, before)
			if still, _ := json.Marshal(s); string(still) != string(was) {
				t.Fatal("At changed the state that it got")
			}
			check(next, as)
			// Till Due nothing happens by itself.
			if d := g.Due(s); !d.IsZero() {
				if _, as := g.At(s, d.Add(-1)); len(as) > 0 {
					t.Fatalf("before %v there was %+v", d, as)
				}
			}
		}
	})
}

func TestBoundsOfTheState(t *testing.T) {
	g := compiled(t, "kpi slotsAvailable\nlevel <p:atLeast>5</p:atLeast>\npenalty 1 credit 1")
	s := g.New(clock("12:00"))
	s, _ = g.Apply(s, Event{Sequence: 1, Time: clock("12:00:01"), Kind: WindowOpened, Slots: 8, Until: clock("23:00")})
	for i := range 1104 {
		e := Event{Sequence: uint64(2 + 2*i), Time: clock("12:00:01").Add(time.Duration(i) * time.Second), Kind: CapacityDown, Slots: int64(i % 8)}
		s, _ = g.Apply(s, e)
		if again, as := g.Apply(s, e); len(as) > 0 || !reflect.DeepEqual(again, s) {
			t.Fatal("the same event again changed something")
		}
		s, _ = g.At(s, e.Time)
	}
	if len(s.Events) > maxEvents || len(s.Seen) > maxSpans {
		t.Errorf("%d events and %d spans are kept", len(s.Events), len(s.Seen))
	}
	f := s.facts("", s.Now)
	// i%8 from 0 s to 1103 s: 3.5 on average, whole rounds of eight; the last is still to come.
	if want := decimal.New(1104/8*28 - 7); f.Used != want {
		t.Errorf("used is %v, want %v", f.Used, want)
	}

	// One At stops after maxSteps moments, and the next goes on.
	g = compiled(t, "kpi slotsAvailable\nlevel <p:atLeast>5</p:atLeast>\npenalty PT1M credit 1\nreward PT1M credit 1")
	s = g.New(clock("12:00"))
	s, _ = g.Apply(s, Event{Sequence: 1, Time: clock("12:00:01"), Kind: WindowOpened, Slots: 8, Until: clock("12:00").Add(90 * 24 * time.Hour)})
	end := clock("12:00").Add(5000 * time.Minute)
	calls, all := 0, 0
	for s.Now.Before(end) {
		var as []Assessment
		s, as = g.At(s, end)
		calls, all = calls+1, all+len(as)
		if len(as) > 2*maxSteps {
			t.Fatalf("one At gave %d assessments", len(as))
		}
	}
	if calls != 2 || all != 1+5000 {
		t.Errorf("%d calls gave %d assessments", calls, all)
	}
}

func TestEventsThatCannotBe(t *testing.T) {
	g := compiled(t, promises[0])
	good := Event{Sequence: 1, Time: clock("13:00"), Kind: Submitted}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Event){
		"sequence": func(e *Event) { e.Sequence = 0 },
		"time":     func(e *Event) { e.Time = time.Time{} },
		"kind":     func(e *Event) { e.Kind = "vanished" },
		"outcome":  func(e *Event) { e.Kind = Ended },
		"service":  func(e *Event) { e.Kind, e.Service = Completed, "a" },
		"slots":    func(e *Event) { e.Slots = -1 },
		"many":     func(e *Event) { e.Slots = maxSlots + 1 },
		"until":    func(e *Event) { e.Kind = WindowOpened },
	} {
		e := good
		change(&e)
		s := g.New(clock("12:00"))
		if next, as := g.Apply(s, e); !fail.Is(e.Check(), fail.Invalid) || as != nil || !reflect.DeepEqual(next, s) {
			t.Errorf("%s: taken as %+v", name, next)
		}
	}
}

// TestTheLatestStart: a job that starts at the moment that Danger gives keeps the
// promise, and one that starts a nanosecond later breaks it.
func TestTheLatestStart(t *testing.T) {
	var gs []*Guarantee
	for _, p := range promises[:3] {
		gs = append(gs, compiled(t, p))
	}
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.SampledFrom(gs).Draw(t, "promise")
		run := time.Duration(rapid.IntRange(0, 90).Draw(t, "run")) * time.Minute
		s := g.New(clock("12:00"))
		s, _ = g.Apply(s, Event{Sequence: 1, Time: clock("12:01"), Service: "a", Kind: Submitted})
		now := clock("12:02").Add(time.Duration(rapid.IntRange(0, 150).Draw(t, "now")) * time.Minute)
		s, _ = g.At(s, now)
		late := now.Add(24 * time.Hour)
		risk, by := g.Danger(s, now, "a", Estimate{Start: late, Finish: late.Add(run)})
		started := func(at time.Time) agreement.GuaranteeState {
			next, _ := g.Apply(s, Event{Sequence: 2, Time: at, Service: "a", Kind: Started})
			next, _ = g.Apply(next, Event{Sequence: 3, Time: at.Add(run), Service: "a", Kind: Ended, Outcome: Finished})
			next, _ = g.At(next, at.Add(48*time.Hour))
			return next.Verdicts["a"].State
		}
		switch risk {
		case InDanger:
			if started(by) != agreement.Fulfilled || started(by.Add(1)) != agreement.Violated {
				t.Fatalf("%s: a start by %v is %s, one after it %s", g, by, started(by), started(by.Add(1)))
			}
			if risk, _ := g.Danger(s, now, "a", Estimate{Start: by, Finish: by.Add(run)}); risk != Safe {
				t.Fatalf("a start by %v is %s", by, risk)
			}
		case Broken:
			if started(now.Add(1)) != agreement.Violated {
				t.Fatalf("a start at %v would keep %s", now, g)
			}
		case Safe, Unclear:
			t.Fatalf("a start a day late is %s", risk)
		}
		if risk, _ := g.Danger(s, now, "a", Estimate{}); risk != Unclear && risk != Broken {
			t.Fatalf("nothing is known, and it is %s", risk)
		}
	})
}

// TestAScopeOfAll: a scope that names no service is about all, whatever stands beside it.
func TestAScopeOfAll(t *testing.T) {
	t.Parallel()
	for _, scopes := range [][]string{nil, {""}, {"render", ""}, {"", "render"}, {"render", "", "merge"}} {
		g := term(t, "kpi queueWait\nlevel <p:atMost>PT10M</p:atMost>")
		for _, s := range scopes {
			g.Scopes = append(g.Scopes, agreement.Scope{ServiceName: s})
		}
		c, err := Compile(g, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.Services != nil {
			t.Errorf("%q: it is about %q", scopes, c.Services)
		}
	}
}
