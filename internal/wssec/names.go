package wssec

import "github.com/portolan-project/portolan/internal/c14n"

// Namespaces.
const (
	nsSOAP11 = "http://schemas.xmlsoap.org/soap/envelope/"
	nsSOAP12 = "http://www.w3.org/2003/05/soap-envelope"
	nsWSSE   = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
	nsWSU    = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
	nsDS     = "http://www.w3.org/2000/09/xmldsig#"
)

// Values of tokens (X.509 token profile 1.1 §3.1).
const (
	encodingBase64 = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#Base64Binary"
	profileX509    = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-x509-token-profile-1.0"
	valueX509v3    = profileX509 + "#X509v3"        // one certificate
	valuePKIPath   = profileX509 + "#X509PKIPathv1" // a path, that of the sender last
)

// The algorithms that are allowed; what is not here is refused.
const (
	algorithmC14N   = c14n.Exclusive
	algorithmSHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
	algorithmECDSA  = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"
	algorithmRSA    = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
)

// Bounds.
const (
	maxReferences = 24       // of a signature: timestamp, Body and header blocks
	maxPrefixes   = 8        // of one InclusiveNamespaces
	maxID         = 128      // bytes of an id
	maxToken      = 64 << 10 // bytes of a token in base64
	maxChain      = 8        // certificates in it
	maxSignature  = 8 << 10  // bytes of a signature value in base64; RSA of 8192 bits has 1368
)
