package replica

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/service"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// The records of a domain's processes:
//
//	serving/holder           where the holder is, and what it promises; bound to its lease
//	serving/replica/<name>   where a replica is; bound to its lease
//	serving/site/<site>      how a site of the holder stands, while there are replicas
const (
	prefix        = "serving/"
	holderKey     = prefix + "holder"
	replicaPrefix = prefix + "replica/"
	sitePrefix    = prefix + "site/"
)

func replicaKey(name string) string { return replicaPrefix + store.Segment(name) }
func siteKey(name string) string    { return sitePrefix + store.Segment(name) }

// Promises are what all processes of a domain must promise alike.
type Promises struct {
	Settings terms.Settings `json:"settings"`
	Own      string         `json:"own,omitempty"` // digest of the administrator's templates
	// Callbacks, sorted, and Budgets are as service.Options has them.
	Callbacks []string                  `json:"callbacks,omitempty"`
	Budgets   map[string]service.Budget `json:"budgets,omitempty"`
}

// differ names the keys of a configuration by which two are not alike.
func (p Promises) differ(o Promises) []string {
	var keys []string
	a, b := reflect.ValueOf(p.Settings), reflect.ValueOf(o.Settings)
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			name := a.Type().Field(i).Name
			keys = append(keys, "agreements."+strings.ToLower(name[:1])+name[1:])
		}
	}
	if !slices.Equal(p.Callbacks, o.Callbacks) {
		keys = append(keys, "agreements.callbacks")
	}
	if !maps.Equal(p.Budgets, o.Budgets) {
		keys = append(keys, "agreements.budgets")
	}
	if p.Own != o.Own {
		keys = append(keys, "agreements.templates")
	}
	return keys
}

// presence is what a process says of itself.
type presence struct {
	Instance string    `json:"instance"` // of the process; another after each start
	URL      string    `json:"url"`      // what it serves is below that
	Promises *Promises `json:"promises,omitempty"`
	Off      bool      `json:"off,omitempty"` // the holder makes no agreements, and keeps none
}

// seen is how a site stood.
type seen struct {
	broker.SiteSight
	At time.Time `json:"at"`
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("replica: a record is no JSON: " + err.Error()) // its types are our own
	}
	return b
}

// named gives the text behind a prefix of a key.
func named(key, prefix string) (string, bool) {
	segment, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return "", false
	}
	return store.Text(segment)
}

// MaxName bounds the name of a replica, in bytes.
const MaxName = 63

// BadName says what is wrong with the name of a replica; "" is nothing.
func BadName(s string) string {
	if s == HolderName {
		return fmt.Sprintf("a replica can't be called %q, as the process that has the sites is: choose another name", s)
	}
	for i, r := range []byte(s) {
		alnum := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || i == len(s)-1 || r != '-' && r != '.') || i >= MaxName {
			return fmt.Sprintf("a replica can't be called %q: a name has 1 to %d lower-case letters, digits, '-' and '.', and begins and ends with a letter or a digit", s, MaxName)
		}
	}
	if s == "" {
		return "a replica needs a name of its own"
	}
	return ""
}

// HolderName is how the process that has a domain's sites is called among replicas.
const HolderName = "gateway"

// notes is what is known of the records.
type notes struct {
	holder   *presence
	replicas map[string]presence
	sites    map[string]seen
}

// take takes in what changed; with all, these are all records that there are.
func (n *notes) take(records []store.Record, all bool) error {
	if all || n.replicas == nil {
		*n = notes{replicas: map[string]presence{}, sites: map[string]seen{}}
	}
	var damaged error
	for _, r := range records {
		read := func(into any) bool {
			if r.Value == nil {
				return false
			}
			if err := json.Unmarshal(r.Value, into); err != nil {
				damaged = fail.E("replica.read", fail.Internal, r.Key, err)
				return false
			}
			return true
		}
		if r.Key == holderKey {
			n.holder = nil
			if p := (presence{}); read(&p) {
				n.holder = &p
			}
		} else if name, ok := named(r.Key, replicaPrefix); ok {
			delete(n.replicas, name)
			if p := (presence{}); read(&p) {
				n.replicas[name] = p
			}
		} else if name, ok := named(r.Key, sitePrefix); ok {
			delete(n.sites, name)
			if s := (seen{}); read(&s) {
				n.sites[name] = s
			}
		}
	}
	return damaged
}

// known gives the sites, sorted.
func (n *notes) known() []string { return slices.Sorted(maps.Keys(n.sites)) }
