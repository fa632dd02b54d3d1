package offering

import (
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xsd"
)

// Wish is a promise that somebody wants for one job.
type Wish struct {
	Kind terms.Kind // StartBy, FinishBy or AdvanceReservation
	Site string     // "" is any
	Job  []byte     // a JSDL document
	Name string     // of the agreement; "" is the template's

	By     time.Time    // of StartBy and FinishBy
	Window terms.Window // of AdvanceReservation
}

// Made is an offer with the template that it was made of.
type Made struct {
	Template *agreement.Template
	Offer    *agreement.Offer
	// Unchecked says why the offer could not be held against the template; "" if it was.
	Unchecked string
}

// Make makes an offer for a wish, of the template that is most to the purpose: that of a
// place for a wish that names its site, and else one for any place before those of one.
// fail.NotFound says that there is no such template; fail.Invalid what the nearest
// demands.
func Make(list []agreement.Template, w Wish) (*Made, error) {
	var first error
	for _, t := range w.candidates(list) {
		m, err := w.from(t)
		if err == nil {
			return m, nil
		}
		if first == nil {
			first = err
		}
	}
	if first != nil {
		return nil, first
	}
	at := ""
	if w.Site != "" {
		at = " at the site " + xsd.Quote(w.Site)
	}
	return nil, fail.Errorf("offering.Make", fail.NotFound, string(w.Kind), "the service has no template that promises %s%s", w.Kind, at)
}

// candidates gives the templates that might do, the best first.
func (w *Wish) candidates(list []agreement.Template) []*agreement.Template {
	var open, placed []*agreement.Template
	for i := range list {
		t := &list[i]
		q, err := terms.Preferred(&t.Agreement)
		if err != nil || q.Kind != w.Kind || len(q.Services) != 1 || q.Services[0].Job == nil {
			continue
		}
		switch p := q.Services[0].Place; {
		case p.IsZero() && (w.Site == "" || itemOf(t, "Place", "Site") != ""):
			open = append(open, t)
		case w.Site == "" || p.Site == w.Site:
			placed = append(placed, t)
		}
	}
	if w.Site != "" {
		return append(placed, open...)
	}
	return append(open, placed...)
}

// itemOf gives the name of the item that is about one of our elements; "" is none.
func itemOf(t *agreement.Template, names ...string) string {
	i := slices.IndexFunc(t.Constraints.Items, func(i agreement.Item) bool { return i.Name != "" && tail(&i, agreement.NSPortolan, names...) })
	if i < 0 {
		return ""
	}
	return t.Constraints.Items[i].Name
}

func (w *Wish) from(t *agreement.Template) (*Made, error) {
	f := Filling{Name: w.Name, Jobs: [][]byte{w.Job}}
	q, err := terms.Preferred(&t.Agreement)
	if err != nil {
		return nil, err
	}
	if w.Site != "" && q.Services[0].Place.IsZero() {
		f.Values = append(f.Values, Value{itemOf(t, "Place", "Site"), w.Site})
	}
	set := func(at time.Time, names ...string) error {
		item := itemOf(t, names...)
		if item == "" {
			return invalid("the template %s lets nobody choose its %s: write the offer as a file", xsd.Quote(t.Name), strings.Join(names, "/"))
		}
		f.Values = append(f.Values, Value{item, at.UTC().Format(time.RFC3339Nano)})
		return nil
	}
	switch w.Kind {
	case terms.StartBy:
		err = set(w.By, "StartBy")
	case terms.FinishBy:
		err = set(w.By, "FinishBy")
	case terms.AdvanceReservation:
		if err = set(w.Window.Start, "Window", "StartTime"); err == nil {
			err = set(w.Window.End, "Window", "EndTime")
		}
	case terms.BestEffort, terms.Capacity:
	}
	if err != nil {
		return nil, err
	}
	m := &Made{Template: t}
	if m.Offer, err = Fill(t, f); err != nil {
		return nil, err
	}
	// What is wrong with it beside the constraints.
	if q, err = terms.Preferred(&m.Offer.Agreement); err != nil {
		return nil, err
	}
	if w.Kind != terms.AdvanceReservation && q.Services[0].Duration == 0 {
		return nil, invalid("a job of which nobody knows how long it runs can't be promised to %s: give it a WallTimeLimit", strings.Replace(string(w.Kind), "-", " ", 1))
	}
	var broken []string
	if broken, m.Unchecked = Check(t, m.Offer); len(broken) > 0 {
		return nil, Broken(t, broken)
	}
	return m, nil
}

// Broken is the error for an offer that breaks what its template demands.
func Broken(t *agreement.Template, sentences []string) error {
	return invalid("the offer is not what the template %s demands:\n%s", xsd.Quote(t.Name), strings.Join(sentences, "\n"))
}
