package policy

import (
	"math"
	"time"

	"github.com/portolan-project/portolan/resourcemodel"
)

// each is a Choice that marks every candidate by itself, so that no mark depends on
// which others there are, nor on their order.
type each func(j *Job, n *resourcemodel.Need, c *Candidate) float64

var _ Marker = each(nil)

func (f each) Mark(j *Job, n *resourcemodel.Need, c *Candidate) float64 { return f(j, n, c) }

func (f each) Score(j *Job, cands []Candidate, _ time.Time) []float64 {
	n := j.Need()
	out := make([]float64, len(cands))
	for i := range cands {
		out[i] = f(j, n, &cands[i])
	}
	return out
}

// Need is what the job takes; never nil.
func (j *Job) Need() *resourcemodel.Need {
	if j.Request != nil {
		return &j.Request.Need
	}
	return &resourcemodel.Need{Slots: 1, CPUs: j.CPUs}
}

// queued sets those that could not start the job now behind all that could.
const queued = -1e9

// leastLoaded: the more free slots win; where none is free, the smaller load for each
// slot.
var leastLoaded = each(func(_ *Job, _ *resourcemodel.Need, c *Candidate) float64 {
	if c.Free > 0 {
		return float64(c.Free)
	}
	return -c.Load
})

// closeCall is less than any difference between places that anybody states; by it the
// less loaded of two places goes first that are alike to a policy.
func closeCall(c *Candidate) float64 {
	x := float64(c.Free)
	if c.Free <= 0 {
		x = -c.Load
	}
	return 1e-6 * x / (1 + math.Abs(x))
}

var firstFit = each(func(_ *Job, _ *resourcemodel.Need, c *Candidate) float64 {
	first := -(float64(c.Preference)*(1<<20) + float64(c.Order))
	if c.Free > 0 {
		return first
	}
	return queued + first
})

func bestFit(cpu, memory, gpu float64) Choice {
	return each(func(_ *Job, n *resourcemodel.Need, c *Candidate) float64 {
		if c.Free <= 0 {
			return queued - c.Load
		}
		// Of a place that tells nothing of its nodes, its slots are what is known.
		cpus := float64((c.Free - 1) * max(n.CPUs, 1))
		if c.Nodes.Nodes > 0 {
			cpus = float64(max(c.Nodes.FreeCPUs-n.CPUs, 0))
		}
		bytes := float64(max(c.Nodes.FreeMemory-n.Memory, 0))
		gpus := float64(max(c.Nodes.FreeGPUs-n.GPUs, 0))
		return -(cpu*cpus + memory*bytes/(1<<30) + gpu*gpus)
	})
}

// wait estimates how long the job would wait; false when nobody knows.
func (c *Candidate) wait(n *resourcemodel.Need) (time.Duration, bool) {
	if c.Derived.Wait != nil {
		if w, ok := c.Derived.Wait(c.Place, n); ok {
			return max(w, 0), true
		}
	}
	if c.Free > 0 {
		return 0, true
	}
	return c.State.Forecast, c.State.Forecast > 0
}

// performance is the measured speed; 1 when nobody knows.
func (c *Candidate) performance() float64 {
	if c.Derived.Performance != nil {
		if p, ok := c.Derived.Performance(c.Place); ok && p > 0 {
			return p
		}
	}
	return 1
}

func (c *Candidate) successRate() (float64, bool) {
	if c.Derived.SuccessRate != nil {
		if r, ok := c.Derived.SuccessRate(c.Place); ok {
			return min(max(r, 0), 1), true
		}
	}
	return 0, false
}

func (c *Candidate) distance(j *Job) (float64, bool) {
	if c.Derived.Distance != nil && j.Request != nil {
		if d, ok := c.Derived.Distance(c.Place, j.Request); ok && d >= 0 {
			return d, true
		}
	}
	return 0, false
}

func (c *Candidate) price() float64 {
	if c.Share == nil {
		return 0
	}
	return c.Share.Price
}

func earliestStart(unknown float64, finish bool) Choice {
	return each(func(j *Job, n *resourcemodel.Need, c *Candidate) float64 {
		at := unknown
		if w, ok := c.wait(n); ok {
			at = w.Seconds()
		}
		if finish {
			at += j.Length.Seconds() / c.performance()
		}
		return closeCall(c) - at
	})
}

func dataAffinity(unknown float64) Choice {
	return each(func(j *Job, _ *resourcemodel.Need, c *Candidate) float64 {
		d, ok := c.distance(j)
		if !ok {
			d = unknown
		}
		return closeCall(c) - d
	})
}

func cheapest(speed bool) Choice {
	return each(func(_ *Job, _ *resourcemodel.Need, c *Candidate) float64 {
		price := c.price()
		if speed {
			price /= c.performance()
		}
		return closeCall(c) - price
	})
}

// bestBroker is the rank of the best broker: what brokers tell of themselves in
// aggregates, and what was measured of them. Marks are between 0 and 1.
type bestBroker struct{ room, wait, speed, success, doubt, scale float64 }

func (b bestBroker) choice() Choice {
	sum := b.room + b.wait + b.speed + b.success
	if sum == 0 {
		sum = 1
	}
	return each(func(_ *Job, n *resourcemodel.Need, c *Candidate) float64 {
		// What an aggregate tells is true of some of its parts only.
		sure := 1.0
		if c.Site != nil && c.Site.Static != nil {
			sure -= b.doubt * float64(min(c.Site.Static.Detail, resourcemodel.None))
		}
		free := float64(max(c.Free, 0))
		room := sure * free / (1 + free)
		wait := 0.0
		if w, ok := c.wait(n); ok {
			wait = sure * b.scale / (b.scale + w.Seconds())
		}
		p := c.performance()
		rate, ok := c.successRate()
		if !ok {
			rate = 0.5
		}
		return (b.room*room + b.wait*wait + b.speed*p/(1+p) + b.success*rate) / sum
	})
}
