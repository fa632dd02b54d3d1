package offering

import (
	"strconv"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
)

// Room is capacity that somebody wants for a window, whatever is to run on it.
type Room struct {
	Name   string // of the agreement; "" is the template's
	CPUs   int
	Window terms.Window
}

// Roomy is an offer for capacity, with the items of its template that say how much and when.
type Roomy struct {
	Template         *agreement.Template
	Offer            *agreement.Offer
	CPUs, Start, End agreement.Item
}

// Rooms makes an offer of each template that promises capacity, those first that leave open at which
// site. What a template bounds is not looked at: whoever is offered to decides. fail.NotFound says
// that there is no such template.
func Rooms(list []agreement.Template, w Room) ([]Roomy, error) {
	var open, placed []Roomy
	for i := range list {
		t := &list[i]
		q, err := terms.Preferred(&t.Agreement)
		if err != nil || q.Kind != terms.Capacity || len(q.Services) != 1 {
			continue
		}
		r := Roomy{Template: t}
		whole := true
		f := Filling{Name: w.Name}
		for _, x := range []struct {
			item  *agreement.Item
			local string
			text  string
		}{
			{&r.CPUs, "CPUs", strconv.Itoa(w.CPUs)},
			{&r.Start, "StartTime", w.Window.Start.UTC().Format(time.RFC3339Nano)},
			{&r.End, "EndTime", w.Window.End.UTC().Format(time.RFC3339Nano)},
		} {
			name := itemOf(t, "Capacity", x.local)
			for k := range t.Constraints.Items {
				if name != "" && t.Constraints.Items[k].Name == name {
					*x.item = t.Constraints.Items[k]
				}
			}
			whole = whole && name != ""
			f.Values = append(f.Values, Value{name, x.text})
		}
		if !whole {
			continue // it lets nobody choose
		}
		if r.Offer, err = Fill(t, f); err != nil {
			continue
		}
		if q.Services[0].Place.IsZero() {
			open = append(open, r)
		} else {
			placed = append(placed, r)
		}
	}
	if all := append(open, placed...); len(all) > 0 {
		return all, nil
	}
	return nil, fail.Errorf("offering.Rooms", fail.NotFound, string(terms.Capacity), "the service has no template that promises capacity for a window")
}
