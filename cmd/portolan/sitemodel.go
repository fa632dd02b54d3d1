package main

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/resourcemodel"
)

// siteModel is what the administrator says of a site beyond what its manager tells.
type siteModel struct {
	// Labels are other names that CandidateHosts may give.
	Labels []string `yaml:"labels"`
	// Allow says who may use the site: "vo:NAME", "user:NAME" or "*"; without it, everybody.
	Allow []string `yaml:"allow"`
	// Deny says who may not, though allow has them.
	Deny []string `yaml:"deny"`
	// Price is that of a CPU-hour, in the unit of all sites.
	Price float64 `yaml:"price"`
	// Shares say more of the manager's queues or partitions, by name; "*" is each that is not named.
	Shares map[string]shareModel `yaml:"shares"`
	// Environments say more of the manager's sets of like nodes, by name; "*" is each that is not named.
	Environments map[string]environmentModel `yaml:"environments"`
	// Applications are what is installed, for documents that name an ApplicationName and no executable.
	Applications []applicationModel `yaml:"applications"`
	// Consumables are counters that jobs of the whole site share, such as licences: how many there are, by name.
	Consumables map[string]int64 `yaml:"consumables"`
	// Data is what lies near.
	Data []dataModel `yaml:"data"`
}

type shareModel struct {
	// Allow narrows the site's.
	Allow []string `yaml:"allow"`
	// Deny widens the site's.
	Deny []string `yaml:"deny"`
	// Price in place of the site's.
	Price float64 `yaml:"price"`
	// Consumables of the share, by name.
	Consumables map[string]int64 `yaml:"consumables"`
}

type environmentModel struct {
	// Features of the nodes, beside those that the manager tells.
	Features []string `yaml:"features"`
	// FileSystems that the nodes mount.
	FileSystems []fileSystemModel `yaml:"fileSystems"`
	// Bandwidth of each node's network, in bit/s.
	Bandwidth float64 `yaml:"bandwidth"`
	// Benchmarks are marks of a node by the benchmark's name, the more the faster.
	Benchmarks map[string]float64 `yaml:"benchmarks"`
	// Consumables of each node, by name.
	Consumables map[string]int64 `yaml:"consumables"`
}

type fileSystemModel struct {
	// Name is what a document's FileSystem gives.
	Name string `yaml:"name"`
	// Type is one of JSDL's: normal, spool, swap or temporary.
	Type string `yaml:"type"`
	// MountPoint is the directory.
	MountPoint string `yaml:"mountPoint"`
	// Size in bytes.
	Size int64 `yaml:"size"`
}

type applicationModel struct {
	// Name is the ApplicationName.
	Name string `yaml:"name"`
	// Version is the ApplicationVersion; without it, any.
	Version string `yaml:"version"`
	// Environments that have it; without it, all.
	Environments []string `yaml:"environments"`
}

type dataModel struct {
	// Prefix of the URIs or paths.
	Prefix string `yaml:"prefix"`
	// Distance is 0 on the spot; the unit is yours, the same for all sites.
	Distance float64 `yaml:"distance"`
}

var whoPattern = regexp.MustCompile(`^(\*|(vo|user):.+)$`)

// check says what is wrong with it, in words that follow a line number.
func (m *siteModel) check(say func(format string, args ...any)) {
	who := func(key string, rules []string) {
		for _, r := range rules {
			if !whoPattern.MatchString(r) {
				say(`%s: %q says nobody: write "vo:NAME", "user:NAME" or "*"`, key, r)
			}
		}
	}
	count := func(key string, list map[string]int64) {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			if list[name] < 0 || name == "" || strings.ContainsAny(name, " \t\n") {
				say("%s: %q: %d is no counter: give a name without blanks and a number that is not negative", key, name, list[name])
			}
		}
	}
	who("model.allow", m.Allow)
	who("model.deny", m.Deny)
	count("model.consumables", m.Consumables)
	for _, name := range slices.Sorted(maps.Keys(m.Shares)) {
		s := m.Shares[name]
		key := "model.shares." + name
		who(key+".allow", s.Allow)
		who(key+".deny", s.Deny)
		count(key+".consumables", s.Consumables)
		if s.Price < 0 {
			say("%s.price: %g is negative", key, s.Price)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Environments)) {
		e := m.Environments[name]
		key := "model.environments." + name
		count(key+".consumables", e.Consumables)
		if e.Bandwidth < 0 {
			say("%s.bandwidth: %g is negative", key, e.Bandwidth)
		}
		for _, f := range e.FileSystems {
			if f.Name == "" || f.Size < 0 || !slices.Contains([]string{"", "normal", "spool", "swap", "temporary"}, f.Type) {
				say("%s.fileSystems: %q: a file system has a name, a type of normal, spool, swap or temporary, and a size that is not negative", key, f.Name)
			}
		}
	}
	if m.Price < 0 {
		say("model.price: %g is negative", m.Price)
	}
	for _, a := range m.Applications {
		if a.Name == "" {
			say("model.applications: an application has a name")
		}
	}
	for _, d := range m.Data {
		if d.Prefix == "" || d.Distance < 0 {
			say("model.data: %q: what lies near has a prefix, and a distance that is not negative", d.Prefix)
		}
	}
}

// forBroker gives it as the broker takes it.
func (c *siteConfig) forBroker() broker.SiteModel {
	m := &c.Model
	out := broker.SiteModel{
		Labels: m.Labels, Policy: resourcemodel.Policy{Allow: m.Allow, Deny: m.Deny}, Price: m.Price, Consumables: consumables(m.Consumables),
		Ahead: c.Ahead,
	}
	for name, s := range m.Shares {
		if out.Shares == nil {
			out.Shares = map[string]broker.ShareModel{}
		}
		out.Shares[name] = broker.ShareModel{
			Policy: resourcemodel.Policy{Allow: s.Allow, Deny: s.Deny}, Price: s.Price, Consumables: consumables(s.Consumables),
		}
	}
	for name, e := range m.Environments {
		if out.Environments == nil {
			out.Environments = map[string]broker.EnvironmentModel{}
		}
		b := broker.EnvironmentModel{Features: e.Features, Bandwidth: e.Bandwidth, Benchmarks: e.Benchmarks, Consumables: consumables(e.Consumables)}
		for _, f := range e.FileSystems {
			b.FileSystems = append(b.FileSystems, resourcemodel.FileSystem{Name: f.Name, Type: f.Type, MountPoint: f.MountPoint, Size: f.Size})
		}
		out.Environments[name] = b
	}
	for _, a := range m.Applications {
		out.Applications = append(out.Applications, resourcemodel.Application{Name: a.Name, Version: a.Version, Environments: a.Environments})
	}
	for _, d := range m.Data {
		out.Data = append(out.Data, resourcemodel.Data{Prefix: d.Prefix, Distance: d.Distance})
	}
	return out
}

// consumables gives counters in the order of their names.
func consumables(list map[string]int64) []resourcemodel.Consumable {
	var out []resourcemodel.Consumable
	for _, name := range slices.Sorted(maps.Keys(list)) {
		out = append(out, resourcemodel.Consumable{Name: name, Total: list[name]})
	}
	return out
}
