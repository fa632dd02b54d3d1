package engine

import (
	"strings"

	"github.com/portolan-project/portolan/internal/store"
)

// Prefix is how the keys of all records of the engine begin.
const Prefix = "agreements/"

const (
	poolPrefix     = Prefix + "pool/"
	statePrefix    = Prefix + "state/"
	documentPrefix = Prefix + "document/"
	ownerPrefix    = Prefix + "owner/"
	accountPrefix  = Prefix + "account/"
	replicaPrefix  = Prefix + "replica/"
)

func stateKey(id string) string    { return statePrefix + store.Segment(id) }
func documentKey(id string) string { return documentPrefix + store.Segment(id) }
func poolKey(id string) string     { return poolPrefix + store.Segment(id) }
func accountKey(vo string) string  { return accountPrefix + store.Segment(vo) }
func replicaKey(name string) string {
	return replicaPrefix + store.Segment(name)
}

// owned gives how the keys of an owner's agreements begin.
func owned(owner string) string { return ownerPrefix + store.Path(2*MaxID, "of", owner) + "/" }

func ownerKey(owner, id string) string { return owned(owner) + store.Segment(id) }

// cut gives the text that a key has after a prefix.
func cut(key, prefix string) (string, bool) {
	segment, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return "", false
	}
	return store.Text(segment)
}
