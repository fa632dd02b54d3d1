package federation

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// bound is that of the bounded slowdown: what is shorter counts as so long.
const bound = time.Second

// figures are what a run comes to.
type figures struct {
	correct
	jobs   int
	wait   summary                   // from submission to begin
	slow   summary                   // bounded slowdown
	by     map[string]*summaryOf     // domain of origin
	placed map[string]map[string]int // origin and place
	length time.Duration             // from the first submission to the last end
	faults []string
	peers  *between // nil where there are none
}

type summaryOf struct{ wait, slow summary }

// summary is of numbers.
type summary struct{ all []float64 }

func (s *summary) add(x float64) { s.all = append(s.all, x) }

func (s *summary) mean() float64 {
	if len(s.all) == 0 {
		return 0
	}
	sum := 0.0
	for _, x := range s.all {
		sum += x
	}
	return sum / float64(len(s.all))
}

// at gives the number that a share of all is not above.
func (s *summary) at(share float64) float64 {
	if len(s.all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s.all))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

func measure(jobs []work, wrote map[string]*ran, begin time.Time, c correct) *figures {
	f := &figures{correct: c, jobs: len(jobs), by: map[string]*summaryOf{}, placed: map[string]map[string]int{}}
	for _, j := range jobs {
		r := wrote[j.id]
		if r == nil || len(r.ends) == 0 || len(r.starts) == 0 {
			continue
		}
		submitted := begin.Add(j.at)
		start, end := r.starts[len(r.starts)-1], r.ends[0]
		wait := max(start.Sub(submitted).Seconds(), 0)
		ran := end.Sub(start).Seconds()
		slowdown := max(1, (wait+ran)/max(ran, bound.Seconds()))
		if f.by[j.origin] == nil {
			f.by[j.origin], f.placed[j.origin] = new(summaryOf), map[string]int{}
		}
		f.wait.add(wait)
		f.slow.add(slowdown)
		f.by[j.origin].wait.add(wait)
		f.by[j.origin].slow.add(slowdown)
		f.placed[j.origin][r.places[len(r.places)-1]]++
		f.length = max(f.length, end.Sub(begin))
	}
	return f
}

// lines are what is said of a run below the table.
func lines(f *figures) []string {
	out := slices.Clone(f.faults)
	if f.peers != nil {
		out = append(out, f.peers.lines...)
	}
	return out
}

// print writes the table of the runs, in their order.
func print(w io.Writer, l load, names []string, all map[string]*figures) {
	fmt.Fprintf(w, "\nThe federation experiment: seed %d, %d domains of %d slots, %s each at %.1f times its capacity, the others at %.2f; run times %s on average.\n\n",
		l.seed, len(l.domains), l.slots, l.phase, l.over, l.rest, l.mean)
	row := func(name string, cell func(*figures) string) {
		fmt.Fprintf(w, "  %-32s", name)
		for _, n := range names {
			fmt.Fprintf(w, "%16s", cell(all[n]))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "  %-32s", "")
	for _, n := range names {
		fmt.Fprintf(w, "%16s", n)
	}
	fmt.Fprintln(w)
	row("jobs", func(f *figures) string { return fmt.Sprint(f.jobs) })
	row("finished", func(f *figures) string { return fmt.Sprint(f.finished) })
	row("lost", func(f *figures) string { return fmt.Sprint(len(f.lost)) })
	row("run twice", func(f *figures) string { return fmt.Sprint(len(f.twice)) })
	row("begun again", func(f *figures) string { return fmt.Sprint(len(f.again)) })
	row("where their VO is not served", func(f *figures) string { return fmt.Sprint(len(f.strayed)) })
	row("as a wrong account", func(f *figures) string { return fmt.Sprint(len(f.astray)) })
	row("time of all, s", func(f *figures) string { return fmt.Sprintf("%.1f", f.length.Seconds()) })
	row("wait, mean, s", func(f *figures) string { return fmt.Sprintf("%.2f", f.wait.mean()) })
	row("wait, 95 %, s", func(f *figures) string { return fmt.Sprintf("%.2f", f.wait.at(0.95)) })
	row("bounded slowdown, mean", func(f *figures) string { return fmt.Sprintf("%.2f", f.slow.mean()) })
	row("bounded slowdown, 95 %", func(f *figures) string { return fmt.Sprintf("%.2f", f.slow.at(0.95)) })
	for _, d := range l.domains {
		row("jobs of "+d+", mean slowdown", func(f *figures) string {
			if f.by[d] == nil {
				return "-"
			}
			return fmt.Sprintf("%.2f", f.by[d].slow.mean())
		})
	}
	for _, d := range l.domains {
		row("jobs of "+d+" by place", func(f *figures) string {
			var parts []string
			for _, p := range slices.Sorted(maps.Keys(f.placed[d])) {
				parts = append(parts, fmt.Sprintf("%s %d", p, f.placed[d][p]))
			}
			return " " + strings.Join(parts, ",")
		})
	}
	far := func(name string, cell func(b *between) string) {
		row(name, func(f *figures) string {
			if f.peers == nil {
				return "-"
			}
			return cell(f.peers)
		})
	}
	far("jobs that ran elsewhere", func(b *between) string { return fmt.Sprint(b.forwarded) })
	far("messages of peers", func(b *between) string { return fmt.Sprint(b.messages) })
	far("bytes of these", func(b *between) string { return fmt.Sprint(b.bytes) })
	far("items in these", func(b *between) string { return fmt.Sprint(b.items) })
	far("bytes on the wire", func(b *between) string { return fmt.Sprint(b.passed) })
	known := func(d time.Duration) string { // not where gateways forgot when their first sessions were opened, as they were killed
		if d == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", d.Seconds())
	}
	far("opening to 1st job elsewhere, s", func(b *between) string { return known(b.first) })
	far("of that, since 1st submission, s", func(b *between) string { return known(b.after) })
	a, b := l.ideal()
	fmt.Fprintf(w, "  These jobs on ideal sites, to which a start costs nothing: mean bounded slowdown %.2f isolated, and %.2f if all slots were one site.\n", a, b)
	for _, n := range names {
		for _, line := range lines(all[n]) {
			fmt.Fprintf(w, "  %s: %s\n", n, line)
		}
	}
	fmt.Fprintln(w)
}
