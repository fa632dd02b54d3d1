package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// activity is one that the user names. The reference of one of our own gateways
// can be made of the endpoint and the id, so that an id is enough on any machine.
// A reference of another make is opaque (GFD.108 §5): it is remembered under a
// short id made of its bytes.
type activity struct {
	id  string
	epr soap.EPR
}

var eprName = xmldoc.Name{Space: soap.NSWSA, Local: "EndpointReference"}

// maxEPR bounds the file of a reference.
const maxEPR = 256 << 10

// ownID gives the id in a reference of one of our own gateways. The tail of the
// address is not enough here: a stranger's may look alike.
func ownID(epr soap.EPR) (string, bool) {
	epr.Address = ""
	id, ok := bes.ActivityID(epr)
	return id, ok && fitsPath(id)
}

// fitsPath reports whether an id can be a file's name and a word of a command line.
func fitsPath(id string) bool {
	if id == "" || len(id) > 128 || id[0] == '-' || id[0] == '.' {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

// named gives an activity the id that the user sees, and says whether the id
// alone is enough to find it again.
func named(epr soap.EPR) (act activity, own bool) {
	if id, ok := ownID(epr); ok {
		return activity{id, epr}, true
	}
	return activity{digested(eprBytes(epr)), epr}, false
}

// eprBytes writes a reference. What the service sent beside the address counts:
// some tell their activities apart by reference parameters only.
func eprBytes(epr soap.EPR) []byte {
	epr.Source = nil
	return xmldoc.Marshal(epr.Element("wsa", eprName))
}

// remembered is what a file of the activities folder holds.
type remembered struct {
	Endpoint  string `json:"endpoint"`
	Reference string `json:"reference"` // a wsa:EndpointReference
}

// name gives the activity of a reference that a service sent, and remembers the
// reference if its id would not be enough.
func (a *app) name(endpoint string, epr soap.EPR) (activity, error) {
	act, own := named(epr)
	if own {
		return act, nil
	}
	if _, err := a.remember(activitiesFolder, remembered{Endpoint: endpoint, Reference: string(eprBytes(epr))}); err != nil {
		return act, fmt.Errorf("the reference of the activity cannot be remembered: %w", err)
	}
	return act, nil
}

// activitiesFolder remembers the references of activities of other makes.
const activitiesFolder = "activities"

// digested gives the name under which a reference is remembered: it is made of its bytes.
func digested(reference []byte) string {
	sum := sha256.Sum256(reference)
	return "epr-" + hex.EncodeToString(sum[:8])
}

// remember keeps a reference in a folder, under the id that it gives.
func (a *app) remember(folder string, m remembered) (id string, err error) {
	id = digested([]byte(m.Reference))
	dir, err := a.dir("XDG_STATE_HOME", ".local/state")
	if err != nil {
		return id, err
	}
	dir = filepath.Join(dir, folder)
	path := filepath.Join(dir, id+".json")
	if _, err := os.Stat(path); err == nil {
		return id, nil // the name is made of the content
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = writeWhole(path, b)
	}
	return id, err
}

// writeWhole writes a file so that nobody ever sees a part of it.
func writeWhole(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // the error before tells
	}
	return err
}

// resolve gives the activity that an argument names: an id, a file that holds an
// endpoint reference, or "-" for one on standard input. endpoint is where the
// activity was made, if that is known better than by the settings.
func (a *app) resolve(arg, endpoint string) (act activity, at string, err error) {
	switch {
	case arg == "-":
		act, err = readReference("standard input", a.in)
		return act, endpoint, err
	case strings.ContainsRune(arg, '/') || strings.HasSuffix(arg, ".xml") || strings.HasSuffix(arg, ".epr"):
		f, err := os.Open(arg)
		if err != nil {
			return act, endpoint, usagef("the endpoint reference could not be read: %v", err)
		}
		defer f.Close()
		act, err = readReference(arg, f)
		return act, endpoint, err
	case !fitsPath(arg):
		return act, endpoint, usagef("%q is no activity: give its id, a file that holds its endpoint reference, or - for one on standard input", arg)
	}
	m, ok, err := a.recall(activitiesFolder, arg)
	if err != nil {
		return act, endpoint, err
	}
	if !ok {
		if strings.HasPrefix(arg, "epr-") {
			return act, endpoint, usagef("the activity %s is not remembered here: give a file that holds its endpoint reference", arg)
		}
		return activity{arg, bes.NewEPR(endpoint, arg)}, endpoint, nil
	}
	act, err = readReference(arg, strings.NewReader(m.Reference))
	return act, m.Endpoint, err
}

// recall reads what a folder remembers of an id.
func (a *app) recall(folder, id string) (m remembered, ok bool, err error) {
	dir, err := a.dir("XDG_STATE_HOME", ".local/state")
	if err != nil {
		return m, false, nil //nolint:nilerr // without a home nothing is remembered
	}
	path := filepath.Join(dir, folder, id+".json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return m, false, usagef("what is remembered of %s could not be read: %v", id, err)
	}
	return m, true, nil
}

// readReference reads a document whose root is an endpoint reference, whatever
// the root's name: BES calls it ActivityIdentifier.
func readReference(what string, r io.Reader) (activity, error) {
	doc, err := xmldoc.Read(r, xmldoc.Limits{Bytes: maxEPR})
	if err != nil {
		return activity{}, usagef("%s holds no endpoint reference: %v", what, err)
	}
	epr, err := soap.DecodeEPR(doc.Root())
	if err != nil {
		return activity{}, usagef("%s holds no endpoint reference: %s", what, sentence(err))
	}
	act, _ := named(epr)
	return act, nil
}
