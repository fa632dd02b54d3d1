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
}

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
}

const (
	shortest = 300 * time.Millisecond
	longest  = 20 * time.Second
)

// jobs gives the jobs of the load, by time.
func (l load) jobs() []work {
	var out []work
	for d, domain := range l.domains {
		rng := rand.New(rand.NewPCG(l.seed, uint64(d)))
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
					out = append(out, work{id: fmt.Sprintf("%s-%d", domain, n), origin: domain, at: when, run: run})
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

// length draws a run time: log-normal, with the mean of the load.
func (l load) length(rng *rand.Rand) time.Duration {
	const sigma = 0.9
	mu := math.Log(l.mean.Seconds()) - sigma*sigma/2
	d := time.Duration(math.Exp(mu+sigma*rng.NormFloat64()) * float64(time.Second))
	return min(max(d, shortest), longest).Round(10 * time.Millisecond)
}

// document is the job in JSDL. It writes to the ledger that it starts, where, and that it
// ends.
func (w work) document(ledger string) []byte {
	script := fmt.Sprintf(`echo "S %[1]s $(readlink /proc/self/ns/net) $(date +%%s.%%N)" >>%[2]s; sleep %.2[3]f; echo "E %[1]s $(date +%%s.%%N)" >>%[2]s`, w.id, ledger, w.run.Seconds())
	return fmt.Appendf(nil, `<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:JobIdentification><j:JobName>%s</j:JobName></j:JobIdentification>`+
		`<j:Application><p:POSIXApplication xmlns:p="%s"><p:Executable>/bin/sh</p:Executable><p:Argument>-c</p:Argument><p:Argument>%s</p:Argument></p:POSIXApplication></j:Application></j:JobDescription></j:JobDefinition>`,
		jsdl.NS, w.id, jsdl.NSPOSIX, strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(script))
}
