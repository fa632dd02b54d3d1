package schedule

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

var update = flag.Bool("update", false, "rewrite what the scripts of testdata say")

// TestScripts runs testdata/*.txt: what is told, "----", and what came of it, which is
// written with -update and read like code.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("it says otherwise now:\n%s", got)
			}
		})
	}
}

// runScript runs blocks of lines, each of which ends with "----" and what it said.
func runScript(t *testing.T, text string) string {
	w := newWorld(t, Options{Seed: 1})
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		said := &strings.Builder{}
		silent := true
		for line := range strings.SplitSeq(block, "\n") {
			if line == "----" {
				break
			}
			out.WriteString(line + "\n")
			if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
				continue
			}
			silent = false
			w.obey(line, said)
			if err := w.s.Audit(w.now); err != nil {
				fmt.Fprintf(said, "audit: %v\n", err)
			}
		}
		if !silent {
			if said.Len() == 0 {
				said.WriteString("ok\n")
			}
			out.WriteString("----\n" + said.String())
		}
		out.WriteByte('\n')
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// arguments reads "name key=value …".
func arguments(t testing.TB, line string) (verb, name string, args map[string]string) {
	words := strings.Fields(line)
	args = map[string]string{}
	for _, word := range words[1:] {
		k, v, ok := strings.Cut(word, "=")
		if !ok {
			if name != "" {
				name += " "
			}
			name += word
			continue
		}
		args[k] = v
	}
	return words[0], name, args
}

func (w *world) number(args map[string]string, key string, otherwise int) int {
	v, ok := args[key]
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		w.t.Fatalf("%s: %v", key, err)
	}
	return n
}

func (w *world) duration(args map[string]string, key string) time.Duration {
	v, ok := args[key]
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		w.t.Fatalf("%s: %v", key, err)
	}
	return d
}

// obey does what a line of a script says.
func (w *world) obey(line string, said *strings.Builder) {
	verb, name, args := arguments(w.t, line)
	switch verb {
	case "site": // site NAME nodes= cpus= free= arch= vo= price= data=PREFIX down=
		w.scriptSite(name, args)
	case "deal": // deal SITE ahead= most= cpus= limit= cpulimit= closed=DURATION
		v := Site{
			Ahead: w.number(args, "ahead", 0), Most: w.number(args, "most", 0), MostCPUs: w.number(args, "cpus", 0),
			Limit: strings.ReplaceAll(args["limit"], "_", " "), LimitCPUs: strings.ReplaceAll(args["cpulimit"], "_", " "),
		}
		if d := w.duration(args, "closed"); d > 0 {
			v.Closed, v.Reopen, v.Problem = true, w.now.Add(d), "it did not answer"
		}
		w.s.SetSite(resourcemodel.Key{Site: name}, v)
	case "wait": // wait SITE=DURATION: the estimate
		for k := range args {
			w.waits[k] = w.duration(args, k)
			w.s.Touched(resourcemodel.Key{Site: k})
		}
	case "policy": // policy SCOPE KIND shadow SETTING
		words := strings.Fields(line)
		shadow := words[3] == "shadow"
		if err := w.set(Scope(words[1]), policy.Kind(words[2]), words[len(words)-1], shadow); err != nil {
			fmt.Fprintf(said, "%v\n", err)
		}
	case "limits":
		w.s.SetLimits(Limits{EachOwner: w.number(args, "owner", 0), EachVO: w.number(args, "vo", 0)})
	case "used": // used GROUP=CPU-SECONDS
		if w.s.usage.base == nil {
			l, err := policy.NewLedger()
			if err != nil {
				w.t.Fatal(err)
			}
			w.s.SetUsage(l)
		}
		for g := range args {
			w.s.Charge(g, float64(w.number(args, g, 0)), w.now)
		}
	case "job": // job ID owner= vo= cpus= class= priority= deadline= length= queue= notbefore= avoid= from=URI hard= soft=
		w.scriptJob(name, args)
	case "try":
		w.scriptTry(name, args, said)
	case "cancel":
		w.s.Remove(name)
	case "left":
		for id := range strings.FieldsSeq(name) {
			w.s.Left(id)
		}
	case "settled":
		w.s.Settled(name)
	case "after":
		d, err := time.ParseDuration(name)
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(d)
	case "next":
		fmt.Fprintf(said, "%s\n", w.moment(w.s.Next(w.now)))
	case "round", "explain":
		for _, d := range w.round(w.number(args, "budget", 0)) {
			w.tell(&d, verb == "explain", said)
		}
	case "why":
		v, ok := w.s.Why(name, w.now)
		if !ok {
			fmt.Fprintf(said, "%s does not wait\n", name)
			return
		}
		w.tellWhy(name, &v, said)
	default:
		w.t.Fatalf("no such verb: %s", line)
	}
}

func (w *world) moment(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return "in " + t.Sub(w.now).String()
}

func (w *world) tell(d *Decision, all bool, said *strings.Builder) {
	fmt.Fprintf(said, "%s → %s", d.Job, d.Place)
	if d.Seed != 0 {
		fmt.Fprintf(said, " (paired)")
	}
	if s := d.Shadow; s != nil {
		switch {
		case s.Place == nil:
			said.WriteString("; the shadow lets it wait")
		case *s.Place == d.Place:
			said.WriteString("; so does the shadow")
		default:
			fmt.Fprintf(said, "; the shadow → %s", s.Place)
		}
	}
	said.WriteByte('\n')
	if !all {
		return
	}
	for _, kind := range []policy.Kind{policy.Scheduling, policy.Selection, policy.Pairing} {
		fmt.Fprintf(said, "  %s %s\n", kind, d.Policy[kind])
	}
	for _, r := range d.Ranked {
		fmt.Fprintf(said, "  ranked %s soft %.2f score %.4g free %d\n", r.Place, r.Soft, r.Score, r.Free)
	}
	for _, r := range d.Out {
		fmt.Fprintf(said, "  out %s: %s: %s\n", r.Place, r.Element, r.Sentence)
	}
	if d.More > 0 {
		fmt.Fprintf(said, "  and %d more\n", d.More)
	}
}

func (w *world) tellWhy(name string, v *Waiting, said *strings.Builder) {
	fmt.Fprintf(said, "%s: %s\n", name, v.Sentence)
	if v.Never {
		said.WriteString("  never, as it is\n")
	}
	if !v.Until.IsZero() {
		fmt.Fprintf(said, "  until %s\n", w.moment(v.Until))
	}
	if v.Nearest != "" {
		fmt.Fprintf(said, "  %s\n", v.Nearest)
	}
}

func (w *world) scriptSite(name string, args map[string]string) {
	cpus := w.number(args, "cpus", 1)
	s := siteOf(name, w.number(args, "nodes", 1), cpus)
	if was := w.sites[name]; was != nil { // only how it stands
		s.Static = was.Static
		s.Dynamic.Environments = was.Dynamic.Environments
		cpus = was.Static.Environments[0].CPUs
	} else {
		s.Static.Environments[0].CPUArchitecture = args["arch"]
		if price := args["price"]; price != "" {
			s.Static.Shares[0].Price = float64(w.number(args, "price", 0))
		}
		if data := args["data"]; data != "" {
			s.Static.Data = []resourcemodel.Data{{Prefix: "http://", Distance: 9}, {Prefix: data, Distance: 1}}
		}
		if vo := args["vo"]; vo != "" {
			s.Static.Policy.Allow = []string{"vo:" + vo}
		}
	}
	n := s.Dynamic.Environments["node"]
	n.FreeCPUs = w.number(args, "free", n.FreeCPUs)
	n.FreeNodes = min(n.Nodes, n.FreeCPUs/max(cpus, 1))
	s.Dynamic.Environments = map[string]resourcemodel.EnvironmentState{"node": n}
	if problem := args["down"]; problem != "" {
		s.Dynamic.Up, s.Dynamic.Problem = false, strings.ReplaceAll(problem, "_", " ")
	}
	w.put(s)
}

// criteria reads "name:operator:value,…".
func criteria(t testing.TB, list string, hard bool) (out []jsdl.Criterion) {
	for one := range strings.SplitSeq(list, ",") {
		if one == "" {
			continue
		}
		parts := strings.SplitN(one, ":", 4)
		if len(parts) < 3 {
			t.Fatalf("a criterion is name:type:operator:value, not %q", one)
		}
		c := jsdl.Criterion{Name: parts[0], Type: parts[1], Operator: parts[2], Hard: hard, Priority: 100}
		if len(parts) == 4 {
			c.Value = parts[3]
		}
		out = append(out, c)
	}
	return out
}

func (w *world) scriptEntry(name string, args map[string]string) Entry {
	j := &policy.Job{
		ID: name, Owner: args["owner"], VO: args["vo"], Submitted: w.now, CPUs: w.number(args, "cpus", 1), Class: w.number(args, "class", 0),
		Priority: w.number(args, "priority", 0), Length: w.duration(args, "length"),
	}
	if d := w.duration(args, "deadline"); d > 0 {
		j.Deadline = w.now.Add(d)
	}
	if d := w.duration(args, "ago"); d > 0 {
		j.Submitted = w.now.Add(-d)
	}
	w.stage = args["from"]
	j.Request = w.request("", j.VO, j.CPUs, slices.Concat(criteria(w.t, args["hard"], true), criteria(w.t, args["soft"], false)))
	e := Entry{Job: j, Attempt: 1 + j.Class, Queue: args["queue"]}
	if d := w.duration(args, "notbefore"); d > 0 {
		e.NotBefore = w.now.Add(d)
	}
	if avoid := args["avoid"]; avoid != "" {
		e.Avoid = []resourcemodel.Key{{Site: avoid}}
	}
	return e
}

func (w *world) scriptJob(names string, args map[string]string) {
	for name := range strings.FieldsSeq(names) {
		e := w.scriptEntry(name, args)
		w.jobs[name] = e.Job
		w.s.Add(e)
	}
}

func (w *world) scriptTry(name string, args map[string]string, said *strings.Builder) {
	before, _ := w.s.UnderWay()
	waiting := w.s.Len()
	r := w.s.Try(w.scriptEntry(name, args), w.now, 100)
	if after, _ := w.s.UnderWay(); after != before || w.s.Len() != waiting {
		w.t.Fatal("a dry run changed something")
	}
	for _, v := range r.Verdicts {
		fmt.Fprintf(said, "%s could %t now %t", v.Place, v.Could, v.Now)
		for _, c := range v.Clauses {
			fmt.Fprintf(said, "; %s", c.Sentence)
		}
		said.WriteByte('\n')
	}
	if r.Decision != nil {
		w.tell(r.Decision, false, said)
		return
	}
	w.tellWhy(name, &r.Waiting, said)
}
