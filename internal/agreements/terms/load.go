package terms

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Load reads the templates that administrators write, each a file with one wsag:Template,
// by the files' names. Every alternative that the terms leave must be one that offers can
// be made of here. All that is wrong is reported, with file and line.
func Load(files map[string][]byte) ([]agreement.Template, error) {
	var list []agreement.Template
	var all []error
	from := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		t, err := load(name, files[name])
		if err != nil {
			all = append(all, err)
			continue
		}
		key := t.Name + "\x00" + t.TemplateID
		if before, ok := from[key]; ok {
			all = append(all, fail.Errorf("terms.Load", fail.Conflict, name, "%s:1: the template %s with the id %s is in %s already; give one of them another id", name, quoted(t.Name), quoted(t.TemplateID), before))
			continue
		}
		from[key] = name
		list = append(list, *t)
	}
	if len(all) > 0 {
		var sentences []string
		for _, err := range all {
			sentences = append(sentences, fail.Sentence(err))
		}
		return nil, fail.Errorf("terms.Load", fail.KindOf(all[0]), "", "%s", strings.Join(sentences, "\n")).Because(errors.Join(all...))
	}
	return list, nil
}

func load(name string, b []byte) (*agreement.Template, error) {
	refuse := func(err error) error {
		s := fail.Sentence(err)
		if rest, ok := strings.CutPrefix(s, "line "); ok {
			s = rest
		} else {
			s = "1: " + s
		}
		return fail.Errorf("terms.Load", fail.KindOf(err), name, "%s:%s", name, s)
	}
	t, err := agreement.ParseTemplate(b)
	if err != nil {
		return nil, refuse(err)
	}
	doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
	if err != nil {
		return nil, refuse(err)
	}
	at := func(e *etree.Element, err error) error {
		if e == nil {
			e = doc.Root()
		}
		return fail.Errorf("terms.Load", fail.KindOf(err), name, "%s:%s: %s", name, doc.Position(e), fail.Sentence(err))
	}
	switch {
	case t.Name == "" || t.TemplateID == "":
		return nil, at(nil, invalid("", "the template needs a wsag:Name and the attribute wsag:TemplateId, by which offers refer to it"))
	case reserved(t.Name):
		return nil, at(nil, invalid("", "the name %s is one that the gateway gives to its own templates; take another", quoted(t.Name)))
	case t.Context.TemplateID != "" && t.Context.TemplateID != t.TemplateID || t.Context.TemplateName != "" && t.Context.TemplateName != t.Name:
		return nil, at(nil, invalid("", "the Context says another TemplateName or TemplateId than the template has; an offer that is made of it would be refused"))
	}
	alternatives, cut := agreement.Choose(t.Terms, nil, maxAlternatives)
	if cut {
		return nil, at(nil, fail.Errorf("terms.Load", fail.Exhausted, name, "the template leaves more than %d choices of terms; leave fewer", maxAlternatives))
	}
	for _, alt := range alternatives {
		x := t.Agreement
		x.Terms = alt.Terms
		if _, err := read(&x); err != nil {
			subject := ""
			if f, ok := errors.AsType[*fail.Error](err); ok {
				subject = f.Subject
			}
			return nil, at(named(doc, doc.Root(), subject), err)
		}
	}
	if len(alternatives) == 0 {
		return nil, at(nil, invalid("", "the template has no terms"))
	}
	if _, err := t.Compile(); err != nil {
		return nil, at(culprit(doc.Root(), t), err)
	}
	// Offers that are made of it must say which template it was.
	t.Context.TemplateID, t.Context.TemplateName = t.TemplateID, t.Name
	return t, nil
}

// culprit finds the first constraint that does not compile by itself.
func culprit(root *etree.Element, t *agreement.Template) *etree.Element {
	constraints := xmldoc.Child(root, agreement.NS, "CreationConstraints")
	if constraints == nil {
		return nil
	}
	items, free := 0, 0
	for _, e := range constraints.ChildElements() {
		one := *t
		one.Constraints = agreement.Constraints{}
		switch {
		case e.Tag == "Item" && items < len(t.Constraints.Items):
			one.Constraints.Items = t.Constraints.Items[items : items+1]
			items++
		case e.Tag == "Constraint" && free < len(t.Constraints.Free):
			one.Constraints.Free = t.Constraints.Free[free : free+1]
			free++
		default:
			continue
		}
		if _, err := one.Compile(); err != nil {
			return e
		}
	}
	return constraints
}

// reserved says whether a name is of the form of our own.
func reserved(name string) bool {
	for _, k := range Kinds() {
		if name == string(k) || strings.HasPrefix(name, string(k)+"@") {
			return true
		}
	}
	return false
}

// named finds the term, the service or the element of a name.
func named(doc *xmldoc.Document, e *etree.Element, name string) *etree.Element {
	if name == "" {
		return nil
	}
	for _, attr := range []string{"Name", "ServiceName"} {
		if v, ok := xmldoc.Attr(e, agreement.NS, attr); ok && v == name {
			return e
		}
	}
	if e.Tag == name && doc.Name(e).Space == agreement.NS {
		return e
	}
	for _, c := range e.ChildElements() {
		if found := named(doc, c, name); found != nil {
			return found
		}
	}
	return nil
}
