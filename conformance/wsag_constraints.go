package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/internal/xpath"
)

const compliance = "WS-Agreement 1.0, compliance of an offer with a template"

var wsagConstraintChecks = []check{
	{"WSAG-CON-1", compliance + "; XML Schema part 2 §4.3.10", "a value below a minInclusive is refused", breaking("minInclusive")},
	{"WSAG-CON-2", compliance + "; XML Schema part 2 §4.3.7", "a value above a maxInclusive is refused", breaking("maxInclusive")},
	{"WSAG-CON-3", compliance + "; XML Schema part 2 §4.3.9", "the value of a minExclusive itself is refused", breaking("minExclusive")},
	{"WSAG-CON-4", compliance + "; XML Schema part 2 §4.3.8", "the value of a maxExclusive itself is refused", breaking("maxExclusive")},
	{"WSAG-CON-5", compliance + "; XML Schema part 2 §4.3.5", "a value that no enumeration lists is refused", breaking("enumeration")},
	{"WSAG-CON-6", compliance + "; XML Schema part 2 §4.3.4", "a value that no pattern matches is refused", breaking("pattern")},
	{"WSAG-CON-7", compliance + "; XML Schema part 2 §4.3.1", "a value of another length is refused", breaking("length")},
	{"WSAG-CON-8", compliance + "; XML Schema part 2 §4.3.2", "a value shorter than a minLength is refused", breaking("minLength")},
	{"WSAG-CON-9", compliance + "; XML Schema part 2 §4.3.3", "a value longer than a maxLength is refused", breaking("maxLength")},
	{"WSAG-CON-10", compliance + "; XML Schema part 2 §4.3.11", "a number of more than totalDigits is refused", breaking("totalDigits")},
	{"WSAG-CON-11", compliance + "; XML Schema part 2 §4.3.12", "a number of more than fractionDigits is refused", breaking("fractionDigits")},
	{"WSAG-CON-12", compliance + "; GFD.107 schema, ItemConstraint (xs:simpleRestrictionModel)", "a value that is not of the simple type is refused", breaking("simpleType")},
	{"WSAG-CON-13", compliance + "; GFD.107 schema, ItemConstraint (xs:typeDefParticle)", "children that are not those of the particle are refused", breaking("particle")},
	{"WSAG-CON-14", "WS-Agreement 1.0, creation constraints (free constraints)", "an offer that breaks a free constraint is refused", breakingFree},
	{"WSAG-CON-15", compliance, "an offer that lacks what an Item of the template is about is refused", missing},
	{"WSAG-CON-16", compliance, "another value that the Items let is not called a breach", within},
	{"WSAG-CON-17", "WS-BaseFaults 1.2 §2 (Description)", "the refusal says in words which Item is broken", namesItem},
	{"WSAG-CON-18", "WS-BaseFaults 1.2 §2 (Description)", "two broken Items are both named", namesBoth},
	{"WSAG-CON-19", "WS-Agreement 1.0, the PendingAgreementFactory port type; " + compliance, "a pending offer that does not comply is refused, at once or when it is decided", pendingBreach},
}

// facets gives an Item's facets of a kind with their values; of the kind "" all.
func facets(i *agreement.Item, kind string) []*etree.Element {
	if i.Constraint == nil {
		return nil
	}
	var list []*etree.Element
	var visit func(*etree.Element)
	visit = func(e *etree.Element) {
		for _, c := range e.ChildElements() {
			n := xmldoc.NameOf(c)
			if n.Space != nsXSD {
				continue
			}
			switch n.Local {
			case "simpleType", "restriction":
				visit(c)
			default:
				if kind == "" || n.Local == kind {
					list = append(list, c)
				}
			}
		}
	}
	visit(i.Constraint)
	return list
}

// has reports whether an Item's constraint holds one of these.
func has(i *agreement.Item, locals ...string) bool {
	return i.Constraint != nil && slices.ContainsFunc(i.Constraint.ChildElements(), func(e *etree.Element) bool {
		n := xmldoc.NameOf(e)
		return n.Space == nsXSD && slices.Contains(locals, n.Local)
	})
}

// moved gives values of the order of v, by some steps more or less, written as v is. The steps of times are hours and days, as
// the bounds of templates move with the clock.
func moved(v string, by int64) []string {
	v = xmldoc.Collapse(v)
	if r, ok := new(big.Rat).SetString(v); ok && !strings.Contains(v, "/") {
		whole, _, _ := strings.Cut(v, ".")
		places := 0
		if i := strings.IndexByte(v, '.'); i >= 0 {
			places = len(v) - len(whole) - 1
		}
		r.Add(r, big.NewRat(by, 1))
		return []string{r.FloatString(places)}
	}
	if t, form, ok := timeOf(v); ok {
		return []string{t.Add(time.Duration(by) * time.Hour).Format(form), t.AddDate(0, 0, int(by)).Format(form)}
	}
	if strings.HasPrefix(v, "P") || strings.HasPrefix(v, "-P") {
		if by < 0 {
			return []string{"PT0S", "-P1D", "-P999Y"}
		}
		return []string{"P999Y", "P9999Y"}
	}
	return nil
}

// timeOf reads a time, and says how it is written.
func timeOf(v string) (t time.Time, form string, ok bool) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(form, v); err == nil {
			return t, form, true
		}
	}
	return time.Time{}, "", false
}

// outside gives values that a facet of the kind does not let, or might not.
func outside(kind, v string) []string {
	n, _ := strconv.Atoi(v)
	n = max(0, min(n, 10_000))
	switch kind {
	case "minInclusive":
		return append(moved(v, -1), moved(v, -1_000_000)...)
	case "maxInclusive":
		return append(moved(v, 1), moved(v, 1_000_000)...)
	case "minExclusive", "maxExclusive":
		return []string{v}
	case "enumeration":
		return []string{"no-such-value", "-1", v + "x", ""}
	case "pattern":
		return []string{"§ no match §", "", "x", "0"}
	case "length":
		return []string{strings.Repeat("x", n+1), strings.Repeat("1", n+1), ""}
	case "minLength":
		return []string{strings.Repeat("x", max(0, n-1)), strings.Repeat("1", max(0, n-1))}
	case "maxLength":
		return []string{strings.Repeat("x", n+1), strings.Repeat("1", n+1)}
	case "totalDigits":
		return []string{strings.Repeat("1", n+1), "1." + strings.Repeat("1", n)}
	case "fractionDigits":
		return []string{"1." + strings.Repeat("1", n+1), "0." + strings.Repeat("0", n) + "1"}
	case "simpleType":
		return []string{"no such value", "§", "-1.5e", ""}
	}
	return nil
}

// inside gives values that an Item might let.
func inside(i *agreement.Item) []string {
	var list []string
	for _, f := range facets(i, "") {
		v := f.SelectAttrValue("value", "")
		if _, _, ok := timeOf(v); ok { // what a template lets may move with the clock: not the bound itself
			switch f.Tag {
			case "minInclusive":
				list = append(list, moved(v, 1)...)
			case "maxInclusive":
				list = append(list, moved(v, -1)...)
			}
		}
		switch f.Tag {
		case "minInclusive", "maxInclusive", "enumeration":
			list = append(list, v)
		case "minExclusive":
			list = append(list, moved(v, 1)...)
		case "maxExclusive":
			list = append(list, moved(v, -1)...)
		case "length", "minLength", "maxLength":
			if n, err := strconv.Atoi(v); err == nil && n <= 10_000 {
				list = append(list, strings.Repeat("x", max(n, 0)), strings.Repeat("1", max(n, 0)))
			}
		}
	}
	return append(list, "1", "0", "x", "true", "PT1H", time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}

// breach is an offer that breaks constraints.
type breach struct {
	m     *model
	offer *etree.Element
	items []*agreement.Item
	value string
}

// solely reports whether all that is broken is these Items.
func solely(broken []agreement.Broken, items ...*agreement.Item) bool {
	return len(broken) > 0 && !slices.ContainsFunc(broken, func(b agreement.Broken) bool {
		return !slices.ContainsFunc(items, func(i *agreement.Item) bool { return b.Location == i.Location })
	})
}

// breachOf finds an offer that breaks a constraint of the kind; nil where no template has one
// that can be broken.
func (m *model) breachOf(kind string) *breach {
	good, err := m.offer()
	if err != nil || m.checker == nil {
		return nil
	}
	for k := range m.Constraints.Items {
		i := &m.Constraints.Items[k]
		if kind == "particle" {
			if b := m.particleBreach(good, i); b != nil {
				return b
			}
			continue
		}
		var values []string
		if kind == "simpleType" && has(i, "simpleType") {
			values = outside(kind, "")
		}
		for _, f := range facets(i, kind) {
			if kind != "simpleType" {
				values = append(values, outside(kind, f.SelectAttrValue("value", ""))...)
			}
		}
		for _, v := range values {
			o := good.Copy()
			if put(o, i, v) && solely(m.broken(o), i) {
				return &breach{m, o, []*agreement.Item{i}, v}
			}
		}
	}
	return nil
}

func (m *model) particleBreach(good *etree.Element, i *agreement.Item) *breach {
	if !has(i, "sequence", "choice", "all", "group") {
		return nil
	}
	for _, empty := range []bool{false, true} {
		o := good.Copy()
		for _, n := range at(o, i) {
			e := n.Element()
			if n.Kind() != xpath.Element {
				return nil
			}
			if empty {
				e.Child = nil
			} else {
				e.CreateElement("own:NotAllowed").CreateAttr("xmlns:own", nsOwn)
			}
		}
		if solely(m.broken(o), i) {
			return &breach{m, o, []*agreement.Item{i}, "other children"}
		}
	}
	return nil
}

// find gives the first breach that some template has; a skip with the words if none.
func (p *probe) find(ctx context.Context, what string, of func(*model) *breach) (*breach, error) {
	list, err := p.models(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if b := of(m); b != nil {
			return b, nil
		}
	}
	return nil, skip("no template has %s that an offer could break", what)
}

// refusedBreach sends an offer that must be refused, and gives the fault.
func (p *probe) refusedBreach(ctx context.Context, b *breach) (*reply, *etree.Element, error) {
	rep, err := p.ask(ctx, wsagMessage(createInput, xmlOf(b.offer)))
	if err != nil {
		return nil, nil, err
	}
	_, _ = p.dealOf(rep, createInput, b.offer) // one that was made all the same is to be ended
	f, err := rep.wantContinuing()
	if err != nil {
		return nil, nil, fmt.Errorf("an offer by the template %q with the value %q (%s): %w", b.m.Name, b.value, b.m.broken(b.offer)[0].Sentence, err)
	}
	return rep, f, nil
}

func breaking(kind string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		b, err := p.find(ctx, "an Item with a "+kind, func(m *model) *breach { return m.breachOf(kind) })
		if err != nil {
			return "", err
		}
		rep, _, err := p.refusedBreach(ctx, b)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("the Item %q with %q: %s", b.items[0].Name, b.value, rep), nil
	}
}

func breakingFree(ctx context.Context, p *probe) (string, error) {
	b, err := p.find(ctx, "a free constraint in a language that the kit knows", func(m *model) *breach {
		good, err := m.offer()
		if err != nil || m.checker == nil || len(m.Constraints.Free) == 0 {
			return nil
		}
		for k := range m.Constraints.Items {
			i := &m.Constraints.Items[k]
			values := inside(i)
			for _, n := range at(good, i) {
				for _, by := range []int64{1, -1, 10, -10, 3600, -3600, 1_000_000, -1_000_000} {
					values = append(values, moved(n.Text(), by)...)
				}
			}
			for _, v := range values {
				o := good.Copy()
				if !put(o, i, v) {
					continue
				}
				if broken := m.broken(o); len(broken) > 0 && !slices.ContainsFunc(broken, func(b agreement.Broken) bool { return b.Item != "" }) {
					return &breach{m, o, []*agreement.Item{i}, v}
				}
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	rep, _, err := p.refusedBreach(ctx, b)
	if err != nil {
		return "", err
	}
	return rep.String(), nil
}

func missing(ctx context.Context, p *probe) (string, error) {
	b, err := p.find(ctx, "an Item about an element or attribute", func(m *model) *breach {
		good, err := m.offer()
		if err != nil || m.checker == nil {
			return nil
		}
		for k := range m.Constraints.Items {
			i := &m.Constraints.Items[k]
			o := good.Copy()
			for _, n := range at(o, i) {
				// One whose absence leaves the rest of the message as the schema wants it.
				e := n.Element()
				if n.Kind() == xpath.Element && e.Parent() != nil && xmldoc.NameOf(e).Space != agreement.NS && xmldoc.NameOf(e.Parent()).Space != agreement.NS {
					e.Parent().RemoveChild(e)
				}
			}
			if solely(m.broken(o), i) {
				return &breach{m, o, []*agreement.Item{i}, ""}
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	rep, _, err := p.refusedBreach(ctx, b)
	if err != nil {
		return "", err
	}
	return rep.String(), nil
}

// within offers other values that comply. They may be refused, for want of room say; but
// not as a breach where the fault says what it is, and not with another fault.
func within(ctx context.Context, p *probe) (string, error) {
	list, err := p.models(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range list {
		good, err := m.offer()
		if err != nil || m.checker == nil {
			continue
		}
		for k := range m.Constraints.Items {
			i := &m.Constraints.Items[k]
			for _, v := range inside(i) {
				o := good.Copy()
				if !put(o, i, v) || len(m.broken(o)) > 0 || xmlOf(o) == xmlOf(good) {
					continue
				}
				_, rep, err := p.makeDeal(ctx, createInput, o, "", "")
				if err == nil {
					return fmt.Sprintf("the Item %q with %q: %s", i.Name, v, rep), nil
				}
				if rep == nil || rep.fault == nil {
					return "", err
				}
				f, err := rep.wantContinuing()
				if err != nil {
					return "", err
				}
				if c := xmldoc.Child(f, nsBaseFaults, "ErrorCode"); c != nil && xmldoc.Collapse(xmldoc.Text(c)) == string(agreement.NotCompliant) {
					return "", fmt.Errorf("the Item %q lets %q, and the offer was refused as not compliant: %s", i.Name, v, rep)
				}
				return rep.String(), nil
			}
		}
	}
	return "", skip("no template has an Item that lets another value")
}

// words gives what a fault says to people.
func words(f *etree.Element, rep *reply) string {
	said := []string{rep.fault.reason}
	for _, d := range f.ChildElements() {
		if xmldoc.Is(d, nsBaseFaults, "Description") {
			said = append(said, xmldoc.Text(d))
		}
	}
	return strings.Join(said, "\n")
}

// names reports whether the words name an Item: by its name or by the end of its Location.
func names(s string, i *agreement.Item) bool {
	last := i.Location[strings.LastIndexAny(i.Location, "/:@")+1:]
	return i.Name != "" && strings.Contains(s, i.Name) || last != "" && strings.Contains(s, last)
}

// anyFacet gives breaches of Items, each alone.
func anyFacet(m *model) *breach {
	for _, kind := range []string{"minInclusive", "maxInclusive", "enumeration", "minExclusive", "maxExclusive", "pattern", "maxLength", "minLength", "length", "totalDigits", "fractionDigits", "simpleType"} {
		if b := m.breachOf(kind); b != nil {
			return b
		}
	}
	return nil
}

func namesItem(ctx context.Context, p *probe) (string, error) {
	b, err := p.find(ctx, "an Item", anyFacet)
	if err != nil {
		return "", err
	}
	rep, f, err := p.refusedBreach(ctx, b)
	if err != nil {
		return "", err
	}
	return named(rep, f, b)
}

// named fails unless the fault names the Items. The standard wants a description in words;
// that it names the Items is what ours promise, and a stranger need not.
func named(rep *reply, f *etree.Element, b *breach) (string, error) {
	said := words(f, rep)
	if xmldoc.Child(f, nsBaseFaults, "Description") == nil {
		return "", fmt.Errorf("the fault has no Description that says what is wrong with the offer: %s", rep)
	}
	for _, i := range b.items {
		if names(said, i) {
			continue
		}
		if c := xmldoc.Child(f, nsBaseFaults, "ErrorCode"); c != nil && c.SelectAttrValue("dialect", "") == agreement.Dialect {
			return "", fmt.Errorf("the fault does not name the Item %q: %s", i.Name, said)
		}
		return "", skip("the fault does not name the Item %q, which the standard does not ask for: %s", i.Name, said)
	}
	return said, nil
}

func namesBoth(ctx context.Context, p *probe) (string, error) {
	b, err := p.find(ctx, "two Items", func(m *model) *breach {
		good, err := m.offer()
		if err != nil || m.checker == nil {
			return nil
		}
		var first *breach
		for k := range m.Constraints.Items {
			i := &m.Constraints.Items[k]
			from, items := good, []*agreement.Item{i}
			if first != nil {
				from, items = first.offer, append(items, first.items...)
			}
			found := false
			for _, f := range facets(i, "") {
				for _, v := range outside(f.Tag, f.SelectAttrValue("value", "")) {
					o := from.Copy()
					if !found && put(o, i, v) && len(m.broken(o)) == len(items) && solely(m.broken(o), items...) {
						first, found = &breach{m, o, items, v}, true
					}
				}
			}
			if first != nil && len(first.items) == 2 {
				return first
			}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	rep, f, err := p.refusedBreach(ctx, b)
	if err != nil {
		return "", err
	}
	return named(rep, f, b)
}

func pendingBreach(ctx context.Context, p *probe) (string, error) {
	b, err := p.find(ctx, "an Item", anyFacet)
	if err != nil {
		return "", err
	}
	rep, err := p.ask(ctx, wsagMessage(pendingInput, xmlOf(b.offer)))
	if err != nil {
		return "", err
	}
	if rep.fault != nil {
		if _, err := rep.wantContinuing(); err != nil {
			if none := notOffered(rep, "CreatePendingAgreement"); none != nil {
				return "", none
			}
			return "", err
		}
		return rep.String(), nil
	}
	d, err := p.dealOf(rep, pendingInput, b.offer)
	if err != nil {
		return "", err
	}
	seen, err := p.awaitDeal(ctx, d, decided)
	if err != nil {
		return "", err
	}
	if s := seen[len(seen)-1]; s != agreement.Rejected {
		return "", errors.New("an offer that does not comply became " + joined(seen))
	}
	return joined(seen), nil
}
