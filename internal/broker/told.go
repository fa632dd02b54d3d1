package broker

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/store"
)

// Bounds of what is kept of what a site tells beside; what is beyond is left out,
// as it comes from elsewhere and is held for each job.
const (
	maxHosts     = 256
	maxHostName  = 255
	maxAttrName  = 128
	maxAttrValue = 1024
	maxAttrs     = 8 << 10 // bytes of all together
)

// told gives what evidence tells beside, within bounds; nil when that is nothing.
func told(e *adapters.Evidence) *store.Told {
	t := &store.Told{CPU: max(0, e.Usage.CPU), Memory: max(0, e.Usage.Memory)}
	if e.Progress > 0 { // false for NaN
		t.Progress = min(1, e.Progress)
	}
	for _, h := range e.Hosts {
		if len(t.Hosts) == maxHosts {
			break
		}
		if h != "" && len(h) <= maxHostName {
			t.Hosts = append(t.Hosts, strings.ToValidUTF8(h, "\uFFFD"))
		}
	}
	size := 0
	for _, k := range slices.Sorted(maps.Keys(e.Attributes)) {
		v := e.Attributes[k]
		if k == "" || len(k) > maxAttrName || len(v) > maxAttrValue || len(t.Attributes) == adapters.MaxAttributes || size+len(k)+len(v) > maxAttrs {
			continue
		}
		if t.Attributes == nil {
			t.Attributes = map[string]string{}
		}
		size += len(k) + len(v)
		t.Attributes[strings.ToValidUTF8(k, "\uFFFD")] = strings.ToValidUTF8(v, "\uFFFD")
	}
	if t.Progress == 0 && t.Hosts == nil && t.CPU == 0 && t.Memory == 0 && t.Attributes == nil {
		return nil
	}
	return t
}

// merge gives the newest of what was told: what is not told again stays.
func merge(old, now *store.Told) *store.Told {
	if now == nil || old == nil || alikeTold(old, now) {
		if now == nil || old != nil {
			return old
		}
		return now
	}
	t := *old
	if now.Progress > 0 {
		t.Progress = now.Progress
	}
	if now.Hosts != nil {
		t.Hosts = now.Hosts
	}
	t.CPU, t.Memory = max(t.CPU, now.CPU), max(t.Memory, now.Memory)
	if now.Attributes != nil {
		t.Attributes = now.Attributes
	}
	return &t
}

func alikeTold(a, b *store.Told) bool {
	return a.Progress == b.Progress && a.CPU == b.CPU && a.Memory == b.Memory &&
		slices.Equal(a.Hosts, b.Hosts) && maps.Equal(a.Attributes, b.Attributes)
}

// hear keeps what a fact told beside. It is written down with the next step of the
// job, and by itself only when a person would see a difference and it was not
// written for some time.
func (p *plan) hear(t *store.Told, writing bool, now time.Time, interval time.Duration) {
	if p.after.Placement == nil {
		p.j.told = nil
		return
	}
	p.j.told = merge(p.j.told, t)
	due := now.Sub(p.j.toldAt) >= interval && differs(p.after.Told, p.j.told)
	if writing || due {
		p.after.Told = p.j.told
	}
}

func differs(was, is *store.Told) bool {
	if is == nil || was == nil {
		return is != was
	}
	return math.Abs(was.Progress-is.Progress) >= 0.005 || !slices.Equal(was.Hosts, is.Hosts)
}
