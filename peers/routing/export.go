package routing

import (
	"maps"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/resourcemodel"
)

// Exporting is what one peer is shown.
type Exporting struct {
	Detail resourcemodel.Detail `json:"detail"`
	// Sites are those that are shown, a child's as child~site; none is all.
	Sites []string `json:"sites,omitempty"`
	// VOs are the peer's: shares that none of them may use are not shown; none shows all.
	VOs []string `json:"vos,omitempty"`
}

// Export gives what the gateway shows a peer of itself: its own sites, and as a parent those
// of its children under its own name, never what another peer or a parent showed it, and
// never a domain its own sites again. own is the domain's name; children are those whose
// resources it offers.
func Export(s *resourcemodel.Snapshot, own string, children []string, to Peer, e Exporting) (*resourcemodel.Snapshot, error) {
	of := []string{""}
	for _, c := range children {
		if c != to.Domain && c != own {
			of = append(of, c)
		}
	}
	slices.Sort(of)
	of = slices.Compact(of)
	var changes []resourcemodel.Change
	for _, domain := range of {
		for site := range s.SitesOf(domain) {
			if c, ok := e.show(site, domain, own, to.Domain); ok {
				changes = append(changes, c)
			}
		}
	}
	// The revision is that of the model that it was made of, and one at least.
	shown, err := resourcemodel.Empty().Apply(resourcemodel.Delta{Revision: max(s.Revision(), 1), At: s.At(), Changes: changes})
	if err != nil {
		return nil, err
	}
	return resourcemodel.Merge(shown, own, e.Detail, of...)
}

// show gives a site as it is shown; false for one that is not.
func (e Exporting) show(site *resourcemodel.Site, domain, own, to string) (resourcemodel.Change, bool) {
	name, way := site.Site, strings.Split(site.Site, resourcemodel.Via)
	if domain != "" {
		name = domain + resourcemodel.Via + name
	}
	// A child that has us or the peer above itself and below would show us ourselves.
	if domain != "" && slices.ContainsFunc(way[:len(way)-1], func(d string) bool { return d == own || d == to || d == domain }) {
		return resourcemodel.Change{}, false
	}
	if len(e.Sites) > 0 && !slices.Contains(e.Sites, name) {
		return resourcemodel.Change{}, false
	}
	static, dynamic := site.Static, site.Dynamic
	if len(e.VOs) > 0 {
		may := func(p resourcemodel.Policy) bool {
			return slices.ContainsFunc(e.VOs, func(vo string) bool { return mayUse(p, vo) })
		}
		if !may(static.Policy) {
			return resourcemodel.Change{}, false
		}
		shares := slices.DeleteFunc(slices.Clone(static.Shares), func(h resourcemodel.Share) bool { return !may(h.Policy) })
		if len(shares) == 0 {
			return resourcemodel.Change{}, false
		}
		if len(shares) < len(static.Shares) {
			static, dynamic = only(shares, static, dynamic)
		}
	}
	return resourcemodel.Change{Key: site.Key, Static: static, Dynamic: dynamic, Gone: true}, true
}

// only leaves the shares, and of all else what they use.
func only(shares []resourcemodel.Share, static *resourcemodel.Static, dynamic *resourcemodel.Dynamic) (*resourcemodel.Static, *resourcemodel.Dynamic) {
	used := func(environment string) bool {
		return slices.ContainsFunc(shares, func(h resourcemodel.Share) bool { return slices.Contains(h.Environments, environment) })
	}
	s := *static
	s.Shares = shares
	s.Environments = slices.DeleteFunc(slices.Clone(static.Environments), func(e resourcemodel.Environment) bool { return !used(e.ID) })
	s.Applications = nil
	for _, a := range static.Applications {
		if len(a.Environments) > 0 {
			a.Environments = slices.DeleteFunc(slices.Clone(a.Environments), func(id string) bool { return !used(id) })
			if len(a.Environments) == 0 {
				continue
			}
		}
		s.Applications = append(s.Applications, a)
	}
	if dynamic == nil {
		return &s, nil
	}
	d := *dynamic
	d.Shares = maps.Clone(dynamic.Shares)
	maps.DeleteFunc(d.Shares, func(id string, _ resourcemodel.ShareState) bool {
		return !slices.ContainsFunc(shares, func(h resourcemodel.Share) bool { return h.ID == id })
	})
	d.Environments = maps.Clone(dynamic.Environments)
	maps.DeleteFunc(d.Environments, func(id string, _ resourcemodel.EnvironmentState) bool { return !used(id) })
	return &s, &d
}

// mayUse reports whether somebody of the VO may: a rule that names a user may be of one.
func mayUse(p resourcemodel.Policy, vo string) bool {
	denied := slices.Contains(p.Deny, "*") || slices.Contains(p.Deny, "vo:"+vo)
	if denied || len(p.Allow) == 0 {
		return !denied
	}
	return slices.ContainsFunc(p.Allow, func(rule string) bool {
		return rule == "*" || rule == "vo:"+vo || strings.HasPrefix(rule, "user:")
	})
}
