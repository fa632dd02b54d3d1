package resourcemodel

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/portolan-project/portolan/internal/fail"
)

// Bounds of one site. Peers and plug-ins feed the model: what is beyond is refused
// with a sentence, never cut.
const (
	MaxName         = 256     // bytes of a name, an ID, a version, a rule, a word
	MaxText         = 2048    // bytes of a sentence, a path, a prefix
	MaxLabels       = 256     //
	MaxShares       = 1024    //
	MaxEnvironments = 4096    //
	MaxPlaces       = 16384   // environments of the shares, all shares together
	MaxApplications = 4096    //
	MaxRules        = 1024    // in each list of a policy
	MaxConsumables  = 256     // in each list
	MaxData         = 1024    //
	MaxHostNames    = 4096    // of one environment
	MaxFeatures     = 1024    // of one environment
	MaxFileSystems  = 256     // of one environment
	MaxGPUTypes     = 64      // of one environment
	MaxBenchmarks   = 64      // of one environment
	MaxChanges      = 1 << 20 // of one delta

	// MaxCount bounds every count, MaxBytes every number of bytes; sums stay there.
	MaxCount = 1 << 50
	MaxBytes = 1 << 60
	// MaxNumber bounds speeds, prices, benchmarks and distances.
	MaxNumber = 1e18
	// MaxTime bounds durations.
	MaxTime = 100 * 366 * 24 * time.Hour
)

// checker keeps the first thing that is wrong.
type checker struct {
	op  string
	err error
}

func (c *checker) wrong(format string, args ...any) {
	if c.err == nil {
		c.err = fail.Errorf(c.op, fail.Invalid, "", format, args...)
	}
}

// within prefixes the sentence of what is checked in do.
func (c *checker) within(what, id string, do func()) {
	had := c.err
	do()
	if had == nil && c.err != nil {
		c.err = fail.Errorf(c.op, fail.Invalid, "", "%s %s: %s", what, shown(id), fail.Sentence(c.err))
	}
}

// shown makes a text fit for a sentence, whatever it is.
func shown(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}

func (c *checker) text(what, s string, most int) {
	switch {
	case len(s) > most:
		c.wrong("%s has %d bytes; at most %d are taken", what, len(s), most)
	case !utf8.ValidString(s):
		c.wrong("%s %s is not UTF-8", what, shown(s))
	case strings.ContainsFunc(s, unicode.IsControl):
		c.wrong("%s %s has a control character", what, shown(s))
	}
}

func (c *checker) name(what, s string) {
	if s == "" {
		c.wrong("%s is missing", what)
	}
	c.text(what, s, MaxName)
}

// sorted gives the keys of a map in order, so that the same input gets the same answer.
func sorted[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(m))
}

func (c *checker) many(what string, n, most int) {
	if n > most {
		c.wrong("there are %d %s; at most %d are taken", n, what, most)
	}
}

func (c *checker) names(what string, list []string, most int) {
	c.many(what, len(list), most)
	if c.err != nil {
		return
	}
	for _, s := range list {
		c.name("one of the "+what, s)
	}
}

func (c *checker) count(what string, n int) { c.integer(what, int64(n), MaxCount) }

func (c *checker) bytes(what string, n int64) { c.integer(what, n, MaxBytes) }

func (c *checker) integer(what string, n, most int64) {
	if n < 0 || n > most {
		c.wrong("%s is %d; it must be from 0 to %d", what, n, most)
	}
}

func (c *checker) number(what string, f float64) {
	// NaN is on no side of anything.
	if !(f >= 0 && f <= MaxNumber) {
		c.wrong("%s is %g; it must be from 0 to %g", what, f, MaxNumber)
	}
	if f == 0 && math.Signbit(f) {
		c.wrong("%s is -0; it must be 0", what)
	}
}

func (c *checker) duration(what string, d time.Duration) {
	if d < 0 || d > MaxTime {
		c.wrong("%s is %s; it must be from 0 to %s", what, d, MaxTime)
	}
}

func (c *checker) stamp(s Stamp) {
	c.text("the source", s.Source, MaxName)
	if s.Detail >= None {
		c.wrong("the detail %d is none of those that records have: 0 (full), 1 (categorized) and 2 (simple)", s.Detail)
	}
	if y := s.Changed.Year(); y < 1 || y > 9999 {
		c.wrong("the time of the change is in the year %d; it must be from 1 to 9999", y)
	}
}

func (c *checker) policy(p Policy) {
	c.names("allowing rules", p.Allow, MaxRules)
	c.names("denying rules", p.Deny, MaxRules)
	for _, r := range slices.Concat(p.Allow, p.Deny) {
		kind, name, _ := strings.Cut(r, ":")
		if r != "*" && (kind != "vo" && kind != "user" || name == "") {
			c.wrong("the rule %s is not understood: write vo:NAME, user:NAME or *", shown(r))
		}
	}
}

func (c *checker) consumables(list []Consumable) {
	c.many("consumables", len(list), MaxConsumables)
	if c.err != nil {
		return
	}
	seen := make(map[string]bool, len(list))
	for _, k := range list {
		c.name("the name of a consumable", k.Name)
		c.integer("the total of the consumable "+shown(k.Name), k.Total, MaxCount)
		if seen[k.Name] {
			c.wrong("the consumable %s is there twice", shown(k.Name))
		}
		seen[k.Name] = true
	}
}

func (c *checker) free(m map[string]int64) {
	c.many("consumables", len(m), MaxConsumables)
	if c.err != nil {
		return
	}
	for _, k := range sorted(m) {
		c.name("the name of a consumable", k)
		n := m[k]
		c.integer("what is free of the consumable "+shown(k), n, MaxCount)
	}
}

func (c *checker) numbers(what string, m map[string]float64, most int) {
	c.many(what, len(m), most)
	if c.err != nil {
		return
	}
	for _, k := range sorted(m) {
		f := m[k]
		c.name("the name of one of the "+what, k)
		c.number(shown(k)+" of the "+what, f)
	}
}

func (c *checker) gpus(m map[string]int) {
	c.many("types of GPU", len(m), MaxGPUTypes)
	if c.err != nil {
		return
	}
	for _, k := range sorted(m) {
		n := m[k]
		c.text("a type of GPU", k, MaxName)
		c.count("the number of GPUs of type "+shown(k), n)
	}
}

func (c *checker) fileSystems(list []FileSystem) {
	c.many("file systems", len(list), MaxFileSystems)
	if c.err != nil {
		return
	}
	for i, f := range list {
		if slices.ContainsFunc(list[:i], func(o FileSystem) bool { return o.like(f) == 0 }) {
			c.wrong("the file system %s is there twice", shown(f.Name))
		}
		c.name("the name of a file system", f.Name)
		c.text("the type of a file system", f.Type, MaxName)
		c.text("a mount point", f.MountPoint, MaxText)
		c.bytes("the size of the file system "+shown(f.Name), f.Size)
	}
}

func (c *checker) share(s *Share) {
	c.names("environments", s.Environments, MaxEnvironments)
	c.duration("MaxWallTime", s.MaxWallTime)
	c.count("MaxCPUs", s.MaxCPUs)
	c.count("MaxNodes", s.MaxNodes)
	c.bytes("MaxMemory", s.MaxMemory)
	c.count("Slots", s.Slots)
	c.policy(s.Policy)
	c.number("Price", s.Price)
	c.consumables(s.Consumables)
	if p := s.Span; p != nil {
		c.names("merged shares", p.IDs, MaxShares)
		c.duration("the widest MaxWallTime", p.MaxWallTime)
		c.count("the widest MaxCPUs", p.MaxCPUs)
		c.count("the widest MaxNodes", p.MaxNodes)
		c.bytes("the widest MaxMemory", p.MaxMemory)
		c.number("the highest Price", p.Price)
	}
}

func (c *checker) environment(e *Environment) {
	c.text("the operating system", e.OperatingSystem, MaxName)
	c.text("the version of the operating system", e.OSVersion, MaxName)
	c.text("the CPU architecture", e.CPUArchitecture, MaxName)
	c.span(&Span{
		CPUs: e.CPUs, CPUSpeed: e.CPUSpeed, Memory: e.Memory, VirtualMemory: e.VirtualMemory, Disk: e.Disk, Bandwidth: e.Bandwidth,
		GPUs: e.GPUs, Features: e.Features, FileSystems: e.FileSystems, Benchmarks: e.Benchmarks, Consumables: e.Consumables,
	})
	c.names("host names", e.HostNames, MaxHostNames)
	c.count("Classes", e.Classes)
	for i, f := range e.FileSystems {
		if c.err == nil && slices.ContainsFunc(e.FileSystems[:i], func(o FileSystem) bool { return o.Name == f.Name }) {
			c.wrong("there are two file systems %s", shown(f.Name))
		}
	}
	if s := e.Span; s != nil {
		c.within("its span over", e.ID, func() {
			c.span(s)
			if s.CPUs < e.CPUs || s.CPUSpeed < e.CPUSpeed || s.Memory < e.Memory || s.VirtualMemory < e.VirtualMemory || s.Disk < e.Disk || s.Bandwidth < e.Bandwidth {
				c.wrong("the most of a number is less than the least")
			}
		})
	}
}

func (c *checker) span(s *Span) {
	for _, list := range [][]string{s.OperatingSystems, s.OSVersions, s.CPUArchitectures} {
		c.many("operating systems, versions or architectures", len(list), MaxEnvironments)
		if c.err != nil {
			return
		}
		for _, w := range list {
			c.text("one of the operating systems, versions or architectures", w, MaxName)
		}
	}
	c.count("CPUs", s.CPUs)
	c.number("CPUSpeed", s.CPUSpeed)
	c.bytes("Memory", s.Memory)
	c.bytes("VirtualMemory", s.VirtualMemory)
	c.bytes("Disk", s.Disk)
	c.number("Bandwidth", s.Bandwidth)
	c.gpus(s.GPUs)
	c.names("features", s.Features, MaxFeatures)
	c.fileSystems(s.FileSystems)
	c.numbers("benchmarks", s.Benchmarks, MaxBenchmarks)
	c.consumables(s.Consumables)
}

// Check reports the first thing about the part that is beyond the bounds or makes no
// sense: fail.Invalid with a sentence that names it.
func (s *Static) Check() error {
	c := &checker{op: "resourcemodel.Static.Check"}
	c.stamp(s.Stamp)
	c.text("the type of the manager", s.Type, MaxName)
	c.names("labels", s.Labels, MaxLabels)
	c.many("shares", len(s.Shares), MaxShares)
	c.many("environments", len(s.Environments), MaxEnvironments)
	c.many("applications", len(s.Applications), MaxApplications)
	c.many("prefixes of data", len(s.Data), MaxData)
	c.policy(s.Policy)
	c.consumables(s.Consumables)
	if c.err != nil {
		return c.err
	}
	known := make(map[string]bool, len(s.Environments))
	for i := range s.Environments {
		e := &s.Environments[i]
		c.within("environment", e.ID, func() {
			c.name("its ID", e.ID)
			if known[e.ID] {
				c.wrong("there are two of this ID")
			}
			c.environment(e)
		})
		known[e.ID] = true
		if c.err != nil {
			return c.err
		}
	}
	places, shares := 0, make(map[string]bool, len(s.Shares))
	for i := range s.Shares {
		h := &s.Shares[i]
		places += len(h.Environments)
		c.within("share", h.ID, func() {
			c.name("its ID", h.ID)
			if shares[h.ID] {
				c.wrong("there are two of this ID")
			}
			c.share(h)
			c.refer(h.Environments, known)
		})
		shares[h.ID] = true
		if c.err != nil {
			return c.err
		}
	}
	if places > MaxPlaces {
		c.wrong("the shares use %d environments, all together; at most %d are taken", places, MaxPlaces)
	}
	for i := range s.Applications {
		a := &s.Applications[i]
		c.within("application", a.Name, func() {
			c.name("its name", a.Name)
			c.text("its version", a.Version, MaxName)
			c.names("environments", a.Environments, MaxEnvironments)
			c.refer(a.Environments, known)
		})
		if c.err != nil {
			return c.err
		}
	}
	for _, d := range s.Data {
		if d.Prefix == "" {
			c.wrong("a prefix of data is empty")
		}
		c.text("a prefix of data", d.Prefix, MaxText)
		c.number("the distance of "+shown(d.Prefix), d.Distance)
	}
	return c.err
}

// refer reports an ID that is not known or there twice.
func (c *checker) refer(ids []string, known map[string]bool) {
	if c.err != nil {
		return
	}
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if !known[id] {
			c.wrong("it names the environment %s, which the site does not have", shown(id))
		}
		if seen[id] {
			c.wrong("it names the environment %s twice", shown(id))
		}
		seen[id] = true
	}
}

// Check is that of Static.
func (d *Dynamic) Check() error {
	c := &checker{op: "resourcemodel.Dynamic.Check"}
	c.stamp(d.Stamp)
	c.text("the problem", d.Problem, MaxText)
	c.many("shares", len(d.Shares), MaxShares)
	c.many("environments", len(d.Environments), MaxEnvironments)
	c.free(d.Consumables)
	if c.err != nil {
		return c.err
	}
	for _, id := range sorted(d.Shares) {
		s := d.Shares[id]
		c.within("the state of share", id, func() {
			c.name("its ID", id)
			c.count("Running", s.Running)
			c.count("Waiting", s.Waiting)
			c.count("FreeSlots", s.FreeSlots)
			c.duration("Forecast", s.Forecast)
			c.free(s.Consumables)
		})
	}
	for _, id := range sorted(d.Environments) {
		e := d.Environments[id]
		c.within("the state of environment", id, func() {
			c.name("its ID", id)
			c.environmentState(e)
			if e.Best != nil {
				if e.Best.Best != nil {
					c.wrong("the best of its sets has a best one itself")
				}
				c.environmentState(*e.Best)
			}
		})
	}
	return c.err
}

func (c *checker) environmentState(e EnvironmentState) {
	c.count("Nodes", e.Nodes)
	c.count("Available", e.Available)
	c.count("FreeNodes", e.FreeNodes)
	c.count("FreeCPUs", e.FreeCPUs)
	c.bytes("FreeMemory", e.FreeMemory)
	c.count("FreeGPUs", e.FreeGPUs)
	if e.Available > e.Nodes || e.FreeNodes > e.Nodes {
		c.wrong("%d nodes can take jobs and %d are free, of %d", e.Available, e.FreeNodes, e.Nodes)
	}
}

// Check reports what is wrong with a key: fail.Invalid.
func (k Key) Check() error {
	c := &checker{op: "resourcemodel.Key.Check"}
	c.name("the name of the site", k.Site)
	c.text("the name of the domain", k.Domain, MaxName)
	// They are segments of keys and of URIs.
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r))
	}
	site := k.Site
	if k.Domain != "" {
		site = strings.ReplaceAll(site, Via, "") // a domain may show its children's sites: see Merge
	}
	for _, name := range []string{k.Domain, site} {
		if strings.ContainsFunc(name, odd) {
			c.wrong("the name %s is not taken: names of sites and domains have letters, digits and - . _", shown(name))
		}
	}
	return c.err
}

// Check reports what is wrong with a change: fail.Invalid.
func (c *Change) Check() error {
	err := c.Key.Check()
	if err == nil && c.Static != nil {
		err = c.Static.Check()
	}
	if err == nil && c.Dynamic != nil {
		err = c.Dynamic.Check()
	}
	if err == nil && c.Static == nil && c.Dynamic == nil && !c.Gone {
		err = fail.Errorf("resourcemodel.Change.Check", fail.Invalid, "", "the change has no part and does not say that the site is gone")
	}
	if err != nil {
		return fail.Errorf("resourcemodel.Change.Check", fail.Invalid, c.Key.String(), "site %s: %s", shown(c.Key.String()), fail.Sentence(err))
	}
	return nil
}
