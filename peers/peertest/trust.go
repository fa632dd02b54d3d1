package peertest

import (
	"context"
	"crypto/tls"
	"sync"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers"
)

// NS is the namespace of the header block From.
const NS = "urn:portolan:test:trust"

// Keys are the passwords of domains, which all gateways of a test know.
type Keys struct {
	mu sync.Mutex
	of map[string]string
}

// NewKeys gives keys of the domains, each made of its name.
func NewKeys(domains ...string) *Keys {
	k := &Keys{of: map[string]string{}}
	for _, d := range domains {
		k.Set(d, "password of "+d)
	}
	return k
}

// Set changes a domain's key; "" takes it away.
func (k *Keys) Set(domain, key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.of[domain] = key
}

func (k *Keys) get(domain string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.of[domain]
}

// Trust gives what one domain believes. It shows who it is by its password in a header
// block, which the other side must understand.
func (k *Keys) Trust(domain string) peers.Trust { return &trust{keys: k, domain: domain} }

// TrustAs gives a trust that signs as a domain with a password of its own choice.
func (k *Keys) TrustAs(domain, key string) peers.Trust {
	return &trust{keys: k, domain: domain, key: key}
}

type trust struct {
	keys   *Keys
	domain string
	key    string // instead of the one in keys
}

func (t *trust) Understands(n xmldoc.Name) bool { return n == xmldoc.Name{Space: NS, Local: "From"} }

func (t *trust) Sender(_ context.Context, m *soap.Parsed) (peers.Sender, error) {
	blocks := m.Blocks(NS, "From")
	if len(blocks) != 1 {
		return peers.Sender{}, fail.Errorf("peertest.Sender", fail.Unauthenticated, "", "the message does not say whom it is of")
	}
	domain, key := blocks[0].SelectAttrValue("domain", ""), blocks[0].SelectAttrValue("key", "")
	if want := t.keys.get(domain); want == "" || key != want {
		return peers.Sender{}, fail.Errorf("peertest.Sender", fail.Unauthenticated, domain, "the message is not of %s", domain)
	}
	return peers.Sender{Domain: domain, Method: "password"}, nil
}

func (t *trust) Answer(ctx context.Context, domain string, m *soap.Parsed, _ *tls.ConnectionState) error {
	who, err := t.Sender(ctx, m)
	if err == nil && who.Domain != domain {
		err = fail.Errorf("peertest.Answer", fail.Denied, domain, "the answer is of %s and not of %s", who.Domain, domain)
	}
	return err
}

func (t *trust) Signer(string) peers.Signer {
	return func(_ context.Context, envelope *etree.Element) error {
		var header *etree.Element
		for _, c := range envelope.ChildElements() {
			if c.Tag == "Header" {
				header = c
			}
		}
		if header == nil {
			header = etree.NewElement(envelope.Space + ":Header")
			envelope.InsertChildAt(0, header)
		}
		from := header.CreateElement("t:From")
		from.CreateAttr("xmlns:t", NS)
		from.CreateAttr("domain", t.domain)
		key := t.key
		if key == "" {
			key = t.keys.get(t.domain)
		}
		from.CreateAttr("key", key)
		return nil
	}
}

func (t *trust) ClientTLS(string) (*tls.Config, error) { return nil, nil } //nolint:nilnil // as the contract has it
