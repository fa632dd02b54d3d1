package status

import "time"

// Offer is what an endpoint shows of itself before it is trusted. Nothing of it is proven
// but that who answers has the key.
type Offer struct {
	URL string `json:"url"`
	// Domain is the one that the certificate names; "" if it names none or several, so that
	// somebody has to say it.
	Domain string `json:"domain,omitempty"`
	// Domains are all those that it names, when it names several.
	Domains []string `json:"domains,omitempty"`
	// Fingerprint is "SHA256:" and the unpadded base64 of SHA-256 over the key's
	// SubjectPublicKeyInfo. It is of the key, so that a renewed certificate has the same.
	Fingerprint string    `json:"fingerprint"`
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"` // as the certificate says; nobody checked it
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	// Trusted says that the key is trusted for the domain already.
	Trusted bool `json:"trusted,omitempty"`
	// Problem is why it can't be added as it is, and what to change.
	Problem string `json:"problem,omitempty"`
}
