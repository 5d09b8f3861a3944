//go:build pkcs11 && cgo

package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	p11 "github.com/miekg/pkcs11"
)

// maxObjects bounds how many objects are looked at.
const maxObjects = 10000

// maxRSABits is the largest RSA key that is taken: verifying with a larger one takes
// long, and no kernel takes it.
const maxRSABits = 16384

// An object is one on a token.
type object struct {
	handle p11.ObjectHandle
	class  uint
	label  string
	id     []byte
}

// classes are the types of a URI, and those that are worth listing.
var classes = map[uint]string{p11.CKO_PRIVATE_KEY: "private", p11.CKO_PUBLIC_KEY: "public", p11.CKO_CERTIFICATE: "cert"}

func (o *object) uri() *URI { return &URI{Object: o.label, ID: o.id, Type: classes[o.class]} }

func (o *object) String() string { return strings.TrimPrefix(o.uri().String(), "pkcs11:") }

// find returns the handles of the objects that have all attributes of a template.
func (m *module) find(s p11.SessionHandle, template ...*p11.Attribute) (handles []p11.ObjectHandle, err error) {
	if err := m.FindObjectsInit(s, template); err != nil {
		return nil, fmt.Errorf("looking for objects: %w", err)
	}
	defer func() { err = errors.Join(err, m.FindObjectsFinal(s)) }()
	for len(handles) < maxObjects {
		some, _, err := m.FindObjects(s, 64)
		if err != nil {
			return nil, fmt.Errorf("looking for objects: %w", err)
		}
		if len(some) == 0 {
			return handles, nil
		}
		handles = append(handles, some...)
	}
	return nil, fmt.Errorf("more than %d objects match: say more by object and id", maxObjects)
}

// value returns an attribute, nil where the object does not have it or does not tell.
func (m *module) value(s p11.SessionHandle, h p11.ObjectHandle, attribute uint) ([]byte, error) {
	got, err := m.GetAttributeValue(s, h, []*p11.Attribute{p11.NewAttribute(attribute, nil)})
	if isAny(err, []uint{p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_SENSITIVE}) {
		return nil, nil
	}
	if err != nil || len(got) != 1 {
		return nil, err
	}
	return got[0].Value, nil
}

// ulong reads an attribute that is a CK_ULONG, in the byte order of the machine.
func (m *module) ulong(s p11.SessionHandle, h p11.ObjectHandle, attribute uint) (n uint, ok bool, err error) {
	value, err := m.value(s, h, attribute)
	switch len(value) {
	case 8:
		return uint(binary.NativeEndian.Uint64(value)), true, err
	case 4:
		return uint(binary.NativeEndian.Uint32(value)), true, err
	}
	return 0, false, err
}

// objects returns those of a class that u names.
func (m *module) objects(s p11.SessionHandle, class uint, u *URI) ([]*object, error) {
	template := []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, class)}
	if u.Object != "" {
		template = append(template, p11.NewAttribute(p11.CKA_LABEL, u.Object))
	}
	if len(u.ID) > 0 {
		template = append(template, p11.NewAttribute(p11.CKA_ID, u.ID))
	}
	handles, err := m.find(s, template...)
	if err != nil {
		return nil, err
	}
	var all []*object
	for _, h := range handles {
		label, err := m.value(s, h, p11.CKA_LABEL)
		if err != nil {
			return nil, err
		}
		id, err := m.value(s, h, p11.CKA_ID)
		if err != nil {
			return nil, err
		}
		all = append(all, &object{h, class, strings.TrimRight(string(label), "\x00"), id})
	}
	return all, nil
}

// errNoObject says that the token is there and does not have the object.
var errNoObject = errors.New("no such object")

// only returns the one object of a class that u names on t.
func (m *module) only(s p11.SessionHandle, t *token, class uint, u *URI) (*object, error) {
	what := map[uint]string{p11.CKO_PRIVATE_KEY: "private key", p11.CKO_CERTIFICATE: "certificate"}[class]
	found, err := m.objects(s, class, u)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name(), err)
	}
	wanted := &URI{Object: u.Object, ID: u.ID}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		var there []*object
		for _, class := range []uint{p11.CKO_PRIVATE_KEY, p11.CKO_CERTIFICATE, p11.CKO_PUBLIC_KEY} {
			if some, err := m.objects(s, class, new(URI)); err == nil {
				there = append(there, some...)
			}
		}
		return nil, fmt.Errorf("%s has no %s %s: %w; %s%s", t.name(), what, wanted, errNoObject, listed("there are", "there is nothing that can be seen", there), idHint(u.ID, there))
	}
	return nil, fmt.Errorf("%s: more than one %s matches %s: add object or id; %s", t.name(), what, wanted, listed("there are", "", found))
}

// idHint helps with an id that was written in hexadecimal without percent signs.
func idHint(id []byte, there []*object) string {
	if slices.ContainsFunc(there, func(o *object) bool { return len(o.id) > 0 && fmt.Sprintf("%x", o.id) == strings.ToLower(string(id)) }) {
		return "; the bytes of an id are written with a percent sign each: id=%01%02"
	}
	return ""
}

// public returns the public key that belongs to a private one: what the private key
// itself says, else the public key with the same id, or label where it has no id, else
// the certificate with the same id.
func (m *module) public(s p11.SessionHandle, private *object, certs []*x509.Certificate) (crypto.PublicKey, error) {
	keyType, ok, err := m.ulong(s, private.handle, p11.CKA_KEY_TYPE)
	if err != nil {
		return nil, err
	}
	if !ok || keyType != p11.CKK_RSA && keyType != p11.CKK_EC {
		return nil, fmt.Errorf("key %s is of type %d: kernels take RSA (%d) and EC (%d)", private, keyType, p11.CKK_RSA, p11.CKK_EC)
	}
	places := []*object{private}
	siblings := &URI{ID: private.id}
	if len(private.id) == 0 {
		siblings = &URI{Object: private.label}
	}
	if siblings.Object != "" || len(siblings.ID) > 0 {
		more, err := m.objects(s, p11.CKO_PUBLIC_KEY, siblings)
		if err != nil {
			return nil, err
		}
		places = append(places, more...)
	}
	for _, place := range places {
		if other, ok, err := m.ulong(s, place.handle, p11.CKA_KEY_TYPE); err != nil || !ok || other != keyType {
			continue
		}
		read := m.rsaPublic
		if keyType == p11.CKK_EC {
			read = m.ecPublic
		}
		pub, err := read(s, place.handle)
		if pub != nil || err != nil {
			return pub, err
		}
	}
	for _, cert := range certs {
		_, isRSA := cert.PublicKey.(*rsa.PublicKey)
		_, isEC := cert.PublicKey.(*ecdsa.PublicKey)
		if isRSA && keyType == p11.CKK_RSA || isEC && keyType == p11.CKK_EC {
			return cert.PublicKey, nil
		}
	}
	return nil, fmt.Errorf("the token does not tell the public key of %s: put the public key or the certificate on it, with the same id (CKA_ID)", private)
}

// rsaPublic reads a public key out of an object, nil where it does not tell.
func (m *module) rsaPublic(s p11.SessionHandle, h p11.ObjectHandle) (crypto.PublicKey, error) {
	modulus, err := m.value(s, h, p11.CKA_MODULUS)
	if err != nil {
		return nil, err
	}
	exponent, err := m.value(s, h, p11.CKA_PUBLIC_EXPONENT)
	if err != nil || len(modulus) == 0 || len(exponent) == 0 {
		return nil, err
	}
	n, e := new(big.Int).SetBytes(modulus), new(big.Int).SetBytes(exponent)
	if n.BitLen() > maxRSABits || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
		return nil, fmt.Errorf("the token tells of an RSA key of %d bits whose exponent has %d: no kernel takes it", n.BitLen(), e.BitLen())
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// curves are those that kernels verify, by the DER of their object identifiers, which
// is what CKA_EC_PARAMS holds.
var curves = map[string]elliptic.Curve{
	"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07": elliptic.P256(),
	"\x06\x05\x2b\x81\x04\x00\x22":             elliptic.P384(),
	"\x06\x05\x2b\x81\x04\x00\x23":             elliptic.P521(),
}

// ecPublic does the same for EC.
func (m *module) ecPublic(s p11.SessionHandle, h p11.ObjectHandle) (crypto.PublicKey, error) {
	params, err := m.value(s, h, p11.CKA_EC_PARAMS)
	if err != nil {
		return nil, err
	}
	point, err := m.value(s, h, p11.CKA_EC_POINT)
	if err != nil || len(params) == 0 || len(point) == 0 {
		return nil, err
	}
	return parseEC(params, point)
}

// parseEC takes the point as the standard has it, in an OCTET STRING, and bare, as
// some modules do.
func parseEC(params, point []byte) (crypto.PublicKey, error) {
	curve, ok := curves[string(params)]
	if !ok {
		return nil, fmt.Errorf("the curve of the key (CKA_EC_PARAMS %x) is none that kernels verify: use P-256 or P-384", params[:min(len(params), 32)])
	}
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err != nil || len(rest) > 0 {
		inner = point
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, inner)
	if err != nil {
		return nil, fmt.Errorf("the token tells of a point that is none of the curve: %w", err)
	}
	return pub, nil
}

// certificates returns the X.509 certificates among the objects, those that cannot be
// read left out, the one that expires last first.
func (m *module) certificates(s p11.SessionHandle, among []*object) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, o := range among {
		der, err := m.value(s, o.handle, p11.CKA_VALUE)
		if err != nil {
			return nil, err
		}
		if cert, err := parseCertificate(der); err == nil {
			certs = append(certs, cert)
		}
	}
	slices.SortStableFunc(certs, func(a, b *x509.Certificate) int {
		if c := b.NotAfter.Compare(a.NotAfter); c != 0 {
			return c
		}
		return bytes.Compare(a.Raw, b.Raw)
	})
	return certs, nil
}

func parseCertificate(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if pub, ok := cert.PublicKey.(*rsa.PublicKey); ok && pub.N.BitLen() > maxRSABits {
		return nil, fmt.Errorf("its RSA key has %d bits, more than %d", pub.N.BitLen(), maxRSABits)
	}
	return cert, nil
}

// certificatesOf returns the certificates with the id of a private key.
func (m *module) certificatesOf(s p11.SessionHandle, private *object) ([]*x509.Certificate, error) {
	if len(private.id) == 0 {
		return nil, nil
	}
	found, err := m.objects(s, p11.CKO_CERTIFICATE, &URI{ID: private.id})
	if err != nil {
		return nil, err
	}
	return m.certificates(s, found)
}
