package federation

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// work is one job of the workload.
type work struct {
	id     string
	origin string        // the domain where it is submitted
	at     time.Duration // after the begin of the run
	run    time.Duration // how long it runs
	vo     string
}

// The VOs of the domains: users of the first ones are served everywhere, those of house at home only.
const house = "house"

var everywhere = []string{"climate", "bio"}

// load says what the jobs of a seed are like. Jobs come in bursts, as people submit them;
// their run times are spread over orders of magnitude, with most of them short.
type load struct {
	seed    uint64
	domains []string
	slots   int           // of each domain
	phase   time.Duration // in which each domain in turn is the overloaded one
	over    float64       // its load, by its slots
	rest    float64       // that of the others
	mean    time.Duration // of run times
	house   float64       // part of the jobs that must not leave their domain
}

const (
	shortest = 300 * time.Millisecond
	longest  = 20 * time.Second
)

// jobs gives the jobs of the load, by time.
func (l load) jobs() []work {
	var out []work
	for d, domain := range l.domains {
		rng, vos := rand.New(rand.NewPCG(l.seed, uint64(d))), rand.New(rand.NewPCG(l.seed, uint64(d)+1<<32))
		n := 0
		for phase := range l.domains {
			share := l.rest
			if phase == d {
				share = l.over
			}
			// So many seconds of work are to come in the phase; the last job makes it whole, so that every
			// seed has the same load.
			left := time.Duration(share * float64(l.slots) * float64(l.phase))
			begin := time.Duration(phase) * l.phase
			at := begin
			for left > 0 {
				burst := 1 + int(rng.ExpFloat64()*1.5)
				// Bursts are a Poisson process of the rate that the load asks for.
				gap := float64(l.mean) * 2 / (share * float64(l.slots))
				at += time.Duration(rng.ExpFloat64() * gap)
				for range burst {
					run := min(l.length(rng), max(left, shortest))
					left -= run
					n++
					// What would come after the phase comes within it: it is part of its load.
					when := begin + (at-begin)%l.phase
					out = append(out, work{id: fmt.Sprintf("%s-%d", domain, n), origin: domain, at: when, run: run, vo: l.vo(vos)})
					if left <= 0 {
						break
					}
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b work) int { return cmp.Compare(a.at, b.at) })
	return out
}

// vo draws the VO of a job.
func (l load) vo(rng *rand.Rand) string {
	switch x := rng.Float64(); {
	case x < l.house:
		return house
	case x < l.house+(1-l.house)*0.6:
		return everywhere[0]
	}
	return everywhere[1]
}

// ideal gives the mean bounded slowdown of the jobs on sites that start what comes first at no cost:
// with each domain by itself, and with all slots as one site. It says what there is to gain.
func (l load) ideal() (isolated, one float64) {
	jobs := l.jobs()
	sum := func(slots int, of func(work) bool) (sum float64) {
		free := make([]time.Duration, slots)
		for _, j := range jobs {
			if !of(j) {
				continue
			}
			slot := 0
			for i := range free {
				if free[i] < free[slot] {
					slot = i
				}
			}
			begin := max(free[slot], j.at)
			free[slot] = begin + j.run
			sum += max(1, (free[slot]-j.at).Seconds()/max(j.run, bound).Seconds())
		}
		return sum
	}
	for _, d := range l.domains {
		isolated += sum(l.slots, func(j work) bool { return j.origin == d })
	}
	n := float64(len(jobs))
	return isolated / n, sum(l.slots*len(l.domains), func(work) bool { return true }) / n
}

// length draws a run time: log-normal, with the mean of the load.
func (l load) length(rng *rand.Rand) time.Duration {
	const sigma = 0.9
	mu := math.Log(l.mean.Seconds()) - sigma*sigma/2
	d := time.Duration(math.Exp(mu+sigma*rng.NormFloat64()) * float64(time.Second))
	return min(max(d, shortest), longest).Round(10 * time.Millisecond)
}

// document is the job in JSDL. It writes to the ledger that it starts, where and as whom, and
// that it ends.
func (w work) document(ledger string) []byte {
	script := fmt.Sprintf(`echo "S %[1]s $(readlink /proc/self/ns/net) $(date +%%s.%%N) $(id -un)" >>%[2]s; sleep %.2[3]f; echo "E %[1]s $(date +%%s.%%N)" >>%[2]s`, w.id, ledger, w.run.Seconds())
	return fmt.Appendf(nil, `<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:JobIdentification><j:JobName>%s</j:JobName></j:JobIdentification>`+
		`<j:Application><p:POSIXApplication xmlns:p="%s"><p:Executable>/bin/sh</p:Executable><p:Argument>-c</p:Argument><p:Argument>%s</p:Argument></p:POSIXApplication></j:Application><j:Resources><o:Placement xmlns:o="%s"><o:VO>%s</o:VO></o:Placement></j:Resources></j:JobDescription></j:JobDefinition>`,
		jsdl.NS, w.id, jsdl.NSPOSIX, strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(script), jsdl.NSPortolan, w.vo)
}
