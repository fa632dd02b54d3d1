package resourcemodel

import (
	"slices"
	"strings"
)

// The way to a site is the domains that show it, the nearest first, and its name where it is. A
// name that a user gives is any part of the way that hangs together, with "~" or "/" between:
// of the site leaf~hpc of the domain hub "hpc", "leaf/hpc", "leaf~hpc" and "hub/leaf~hpc"
// are the site, and "leaf", "hub" and "hub/leaf" all that is in a domain. So a site that is
// known only through others is named as they name it, as it is called at home, or in full.

func wayOf(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return string(r) == Via || r == '/' })
}

// Named reports whether a name stands for the site, or for a domain on the way to it.
func (k Key) Named(name string) bool {
	way, named := wayOf(k.String()), wayOf(name)
	if len(named) == 0 {
		return false
	}
	for i := 0; i+len(named) <= len(way); i++ {
		if slices.EqualFunc(way[i:i+len(named)], named, strings.EqualFold) {
			return true
		}
	}
	return false
}

// Beyond gives what is left of a name behind a domain: what its own gateway makes of a name that
// others gave. "" is the domain itself; false is a name that has nothing of it.
func Beyond(name, domain string) (string, bool) {
	if domain == "" {
		return name, false
	}
	way := wayOf(name)
	for i, part := range slices.Backward(way) {
		if strings.EqualFold(part, domain) {
			return strings.Join(way[i+1:], Via), true
		}
	}
	return name, false
}
