package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/portolan-project/portolan/internal/fail"
)

// Added is a peer that was added by command, with what it is known by. Each is a file
// DOMAIN.yaml of a Store, and a configuration that stands in the gateway's own file goes before it.
type Added struct {
	Domain string `yaml:"domain"`
	// URL of its endpoint; "" for one that only comes to us.
	URL string `yaml:"url,omitempty"`
	// Key is the fingerprint of its key, as of Pin.String; CA its CA's certificate in PEM. One of them is there.
	Key string `yaml:"key,omitempty"`
	CA  string `yaml:"ca,omitempty"`
	// Role is what the peer is to this gateway: peer, parent or child; "" is peer.
	Role string `yaml:"role,omitempty"`
	// At and By tell when it was added, and by whom.
	At time.Time `yaml:"at"`
	By string    `yaml:"by,omitempty"`
}

// Anchor gives what the peer's certificates are held against. What can't be one is fail.Invalid.
func (p Added) Anchor() (Anchor, error) {
	a := Anchor{Domain: p.Domain}
	if p.Key != "" {
		pin, err := ParsePin(p.Key)
		if err != nil {
			return Anchor{}, err
		}
		a.Pins = []Pin{pin}
	}
	if p.CA != "" {
		var err error
		if a.CAs, err = ParseCertificates([]byte(p.CA), maxChain); err != nil {
			return Anchor{}, fail.Errorf("identity.Added", fail.Invalid, p.Domain, "ca: %s", fail.Sentence(err))
		}
	}
	return a, a.Check()
}

// Pinned gives the peer of an offer, known by its key, which somebody compared.
func (o *Offer) Pinned(domain, by string, at time.Time) Added {
	return Added{Domain: domain, URL: o.URL, Key: o.Pin.String(), At: at.UTC(), By: by}
}

// PEM gives the certificates, for people who want to look closer.
func (o *Offer) PEM() []byte { return EncodeCertificates(o.Chain...) }

// Store is a directory of added peers, one file each. Whoever may write it decides who is trusted; it is
// its owner's alone. The gateway follows it (see fsnotify), so that a command on the same machine needs
// nothing else.
type Store struct{ Dir string }

// maxAdded bounds the peers of a store, and the bytes of each file.
const (
	maxAdded     = 1000
	maxAddedFile = 64 << 10
)

func (s Store) file(domain string) string { return filepath.Join(s.Dir, domain+".yaml") }

// Put writes a peer, in the place of what there was of its domain.
func (s Store) Put(p Added) error {
	if _, err := p.Anchor(); err != nil {
		return err
	}
	b, err := yaml.Marshal(p)
	if err == nil {
		err = os.MkdirAll(s.Dir, 0o700)
	}
	if err == nil {
		err = writeFile(s.file(p.Domain), b)
	}
	if err != nil {
		return fail.Errorf("identity.Store", fail.Internal, p.Domain, "%s could not be written: %s", s.file(p.Domain), why(err)).Because(err)
	}
	return nil
}

// Remove takes a peer away; fail.NotFound if there is none of the domain.
func (s Store) Remove(domain string) error {
	if BadDomain(domain) != "" {
		return fail.Errorf("identity.Store", fail.NotFound, domain, "%s is no domain that was added", shown(domain))
	}
	switch err := os.Remove(s.file(domain)); {
	case errors.Is(err, fs.ErrNotExist):
		return fail.Errorf("identity.Store", fail.NotFound, domain, "the domain %s was not added here", domain)
	case err != nil:
		return fail.Errorf("identity.Store", fail.Internal, domain, "%s could not be removed: %s", s.file(domain), why(err)).Because(err)
	}
	return nil
}

// Get gives the peer of a domain; fail.NotFound if there is none.
func (s Store) Get(domain string) (Added, error) {
	if BadDomain(domain) != "" {
		return Added{}, fail.Errorf("identity.Store", fail.NotFound, domain, "%s is no domain that was added", shown(domain))
	}
	return s.read(domain)
}

func (s Store) read(domain string) (Added, error) {
	file := s.file(domain)
	bad := func(format string, args ...any) (Added, error) {
		return Added{}, fail.Errorf("identity.Store", fail.Invalid, domain, "%s: %s", file, fmt.Sprintf(format, args...))
	}
	i, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Added{}, fail.Errorf("identity.Store", fail.NotFound, domain, "the domain %s was not added here", domain)
	case err != nil:
		return bad("%s", why(err))
	case !i.Mode().IsRegular() || i.Size() > maxAddedFile:
		return bad("it is no regular file, or longer than %d bytes", maxAddedFile)
	case i.Mode().Perm()&0o022 != 0:
		return bad("others may write it (its mode is %04o), and so decide who is trusted: chmod 600 it", i.Mode().Perm())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return bad("%s", why(err))
	}
	var p Added
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil {
		return bad("%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if p.Domain != domain {
		return bad("it is of the domain %s, and its name says %s", shown(p.Domain), domain)
	}
	if _, err := p.Anchor(); err != nil {
		return bad("%s", fail.Sentence(err))
	}
	return p, nil
}

// List gives all, in the order of domains. What can't be read is left out, and told in the
// error, which joins one for each; the list is good all the same.
func (s Store) List() ([]Added, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fail.Errorf("identity.Store", fail.Internal, s.Dir, "the added peers can't be read: %s", why(err)).Because(err)
	}
	var list []Added
	var bad []error
	for _, e := range entries {
		domain, ok := strings.CutSuffix(e.Name(), ".yaml")
		if !ok || BadDomain(domain) != "" {
			continue // a file under way, or one of somebody's own
		}
		if len(list) == maxAdded {
			bad = append(bad, fail.Errorf("identity.Store", fail.Exhausted, s.Dir, "%s has more than %d peers: those from %s on are left out", s.Dir, maxAdded, domain))
			break
		}
		p, err := s.read(domain)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Added) int { return strings.Compare(a.Domain, b.Domain) })
	return list, errors.Join(bad...)
}
