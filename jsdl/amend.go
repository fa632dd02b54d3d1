package jsdl

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// WithCriteria gives the definition with more criteria, after those that it has; the
// definition itself stays as it is. Where the document has an attribute of another
// namespace already, its own holds. More than 64 together are fail.Invalid.
func (j *JobDefinition) WithCriteria(more *Criteria) (*JobDefinition, error) {
	out := *j
	r := new(Resources)
	if j.Description.Resources != nil {
		*r = *j.Description.Resources
	}
	merged := new(Criteria)
	if r.Criteria != nil {
		merged.List = slices.Clone(r.Criteria.List)
		merged.Foreign.Elements = slices.Clone(r.Criteria.Foreign.Elements)
		merged.Foreign.Attributes = slices.Clone(r.Criteria.Foreign.Attributes)
	}
	merged.List = append(merged.List, more.List...)
	if err := fewCriteria(len(merged.List)); err != nil {
		return nil, err
	}
	merged.Foreign.Elements = append(merged.Foreign.Elements, more.Foreign.Elements...)
	for _, a := range more.Foreign.Attributes {
		if !slices.ContainsFunc(merged.Foreign.Attributes, func(b Attribute) bool { return a.Name == b.Name }) {
			merged.Foreign.Attributes = append(merged.Foreign.Attributes, a)
		}
	}
	r.Criteria = merged
	out.Description.Resources = r
	return &out, nil
}

func fewCriteria(n int) error {
	if n > maxCriteria {
		return fail.Errorf("jsdl.WithCriteria", fail.Invalid, "Criteria", "the document and the file have %d criteria together; at most %d are taken", n, maxCriteria)
	}
	return nil
}

// AddCriteria puts the criteria of a file into a document, after those that it has. All
// else stays as it is, comments and layout too; the document is UTF-8 afterwards. What is
// wrong with the criteria, or with the document as far as the place for them goes, is
// fail.Invalid or fail.Unsupported.
func AddCriteria(doc, criteria []byte) ([]byte, error) {
	more, ps := ParseCriteria(criteria, Options{})
	if err := ps.Err(); err != nil {
		return nil, err
	}
	return amend(doc, func(prefix string, description *etree.Element) error {
		resources := resourcesOf(description, prefix)
		e := xmldoc.Child(resources, NSPortolan, "Criteria")
		if e == nil {
			resources.AddChild(more.Element())
			return nil
		}
		has, at := 0, 0 // at is where the sequence of criteria ends
		for _, c := range e.ChildElements() {
			if xmldoc.Is(c, NSPortolan, "Criterion") {
				has, at = has+1, c.Index()+1
			}
		}
		if err := fewCriteria(has + len(more.List)); err != nil {
			return err
		}
		// The prefix may mean anything here: each brings its own.
		whole := more.Element()
		for i, c := range whole.ChildElements()[:len(more.List)] {
			e.InsertChildAt(at+i, xmldoc.Detach(c))
		}
		return nil
	})
}

// SetVO makes a document's job run on behalf of a virtual organisation, in place of the one
// that it names. All else stays as it is, as with AddCriteria.
func SetVO(doc []byte, vo string) ([]byte, error) {
	vo = xmldoc.Collapse(vo)
	switch {
	case vo == "":
		return nil, fail.Errorf("jsdl.SetVO", fail.Invalid, "VO", "the name of the VO is empty")
	case !utf8.ValidString(vo), strings.ContainsFunc(vo, breaks):
		return nil, fail.Errorf("jsdl.SetVO", fail.Invalid, "VO", "%q is no name of a VO: it has a control character", vo)
	case utf8.RuneCountInString(vo) > maxWord:
		return nil, fail.Errorf("jsdl.SetVO", fail.Invalid, "VO", "the name of a VO has %d characters; expected at most %d", utf8.RuneCountInString(vo), maxWord)
	}
	e := etree.NewElement("portolan:Placement")
	e.CreateAttr("xmlns:portolan", NSPortolan)
	(&Placement{VO: &vo}).write(e)
	return amend(doc, func(prefix string, description *etree.Element) error {
		resources := resourcesOf(description, prefix)
		placement := xmldoc.Child(resources, NSPortolan, "Placement")
		if placement == nil {
			resources.AddChild(e)
			return nil
		}
		if old := xmldoc.Child(placement, NSPortolan, "VO"); old != nil {
			old.Child = nil
			setContent(old, vo)
			return nil
		}
		at := 0
		for _, c := range placement.ChildElements() {
			if xmldoc.NameOf(c).Space == NSPortolan {
				at = c.Index() + 1
			}
		}
		placement.InsertChildAt(at, xmldoc.Detach(e.ChildElements()[0]))
		return nil
	})
}

// amend changes the JobDescription of a document; prefix is how it writes JSDL's names.
func amend(b []byte, change func(prefix string, description *etree.Element) error) ([]byte, error) {
	doc, ps := open(b, Options{})
	if doc == nil {
		return nil, ps.Err()
	}
	root := doc.Root()
	if !xmldoc.Is(root, NS, "JobDefinition") {
		return nil, fail.Errorf("jsdl.Amend", fail.Invalid, "", "the document is a %s, not a job definition; expected the root JobDefinition in the namespace %s", xmldoc.NameOf(root), NS)
	}
	description := xmldoc.Child(root, NS, "JobDescription")
	if description == nil {
		return nil, fail.Errorf("jsdl.Amend", fail.Invalid, "", "%s: JobDefinition has no JobDescription", doc.Position(root))
	}
	if err := change(description.Space, description); err != nil {
		return nil, err
	}
	return append([]byte(`<?xml version="1.0" encoding="UTF-8"?>`+"\n"), append(xmldoc.Marshal(root), '\n')...), nil
}

// resourcesOf gives the Resources of a description, made where the schema has it if there are none.
func resourcesOf(description *etree.Element, prefix string) *etree.Element {
	if r := xmldoc.Child(description, NS, "Resources"); r != nil {
		return r
	}
	at := 0
	for _, c := range description.ChildElements() {
		if n := xmldoc.NameOf(c); n.Space == NS && (n.Local == "JobIdentification" || n.Local == "Application") {
			at = c.Index() + 1
		}
	}
	r := etree.NewElement("Resources")
	r.Space = prefix
	description.InsertChildAt(at, r)
	return r
}
