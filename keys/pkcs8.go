package keys

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/scrypt"
)

// Encrypted PKCS#8, RFC 5958 3, by the scheme PBES2 of RFC 8018: a key is derived
// from the passphrase by PBKDF2 (or scrypt, RFC 7914) and decrypts with AES or
// triple DES in CBC mode. This is what openssl's pkcs8 -topk8, genpkey and req
// make (the last takes triple DES up to OpenSSL 3.4); the standard library reads
// none of it.
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2Params struct {
	KDF        pkix.AlgorithmIdentifier
	Encryption pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

type scryptParams struct {
	Salt      []byte
	N, R, P   int
	KeyLength int `asn1:"optional"`
}

var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidScrypt     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11591, 4, 11}
	oidHMACSHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidHMACSHA384 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}
	oidHMACSHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}
	oidAES128CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 2}
	oidAES192CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 22}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
	oidDESEDE3CBC = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
)

const (
	// iterations is what OWASP advised for PBKDF2 with SHA-256 in 2023; about a
	// quarter of a second.
	iterations = 600_000
	// maxIterations bounds the work that a key file can ask for, maxScryptP
	// that of scrypt together with maxScrypt, which is its memory in bytes.
	maxIterations = 10_000_000
	maxScryptP    = 64
	maxScrypt     = 64 << 20
)

// ErrWrongPassphrase says that a key could not be decrypted.
var ErrWrongPassphrase = errors.New("wrong passphrase: give the one that it was encrypted with, on the terminal or by --passphrase-file or --passphrase-fd")

func isEncrypted(der []byte) bool {
	var k encryptedKey
	rest, err := asn1.Unmarshal(der, &k)
	return err == nil && len(rest) == 0
}

func unmarshalAll(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err == nil && len(rest) > 0 {
		err = errors.New("trailing data")
	}
	return err
}

// decryptKey asks for the passphrase of the encrypted key der, which name names,
// and returns the PKCS #8 key in it.
func decryptKey(der []byte, name string, p Passphrase) ([]byte, error) {
	open, err := parseEncrypted(der)
	if err != nil {
		return nil, fmt.Errorf("its encryption cannot be read: %w; convert it with %s", err, convertCommand(name))
	}
	if p == nil {
		return nil, errors.New("it is encrypted and there is nothing to take its passphrase from")
	}
	passphrase, err := p("Passphrase for " + name + ": ")
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	return open(passphrase)
}

// parseEncrypted reads how a key is encrypted, refuses what would take too much
// time or memory, and returns the function that decrypts it.
func parseEncrypted(der []byte) (open func(passphrase []byte) ([]byte, error), err error) {
	var k encryptedKey
	if err := unmarshalAll(der, &k); err != nil {
		return nil, err
	}
	if !k.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, fmt.Errorf("scheme %s is not PBES2", k.Algorithm.Algorithm)
	}
	var params pbes2Params
	if err := unmarshalAll(k.Algorithm.Parameters.FullBytes, &params); err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	c, err := cbcCipher(params.Encryption.Algorithm)
	if err != nil {
		return nil, err
	}
	derive, err := keyDerivation(params.KDF, c.keySize)
	if err != nil {
		return nil, err
	}
	var iv []byte
	if err := unmarshalAll(params.Encryption.Parameters.FullBytes, &iv); err != nil || len(iv) != c.blockSize {
		return nil, fmt.Errorf("there is no initialization vector of %d bytes", c.blockSize)
	}
	if len(k.Data) == 0 || len(k.Data)%c.blockSize != 0 {
		return nil, fmt.Errorf("%d encrypted bytes are no whole number of blocks", len(k.Data))
	}
	return func(passphrase []byte) ([]byte, error) {
		key, err := derive(passphrase)
		if err != nil {
			return nil, err
		}
		defer clear(key)
		block, err := c.newBlock(key)
		if err != nil {
			return nil, err
		}
		plain := make([]byte, len(k.Data))
		cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, k.Data)
		return unpad(plain, c.blockSize)
	}, nil
}

// unpad takes the padding of RFC 8018 off; that it is not there is how a wrong
// passphrase shows.
func unpad(plain []byte, blockSize int) ([]byte, error) {
	n := int(plain[len(plain)-1])
	if n == 0 || n > blockSize {
		return nil, ErrWrongPassphrase
	}
	for _, c := range plain[len(plain)-n:] {
		if int(c) != n {
			return nil, ErrWrongPassphrase
		}
	}
	plain = plain[:len(plain)-n]
	// One wrong passphrase in 256 leaves a good padding, but hardly ever DER.
	var sequence asn1.RawValue
	if err := unmarshalAll(plain, &sequence); err != nil || sequence.Tag != asn1.TagSequence {
		return nil, ErrWrongPassphrase
	}
	return plain, nil
}

// A blockCipher is what a key is encrypted with, in CBC mode; sizes are in bytes.
type blockCipher struct {
	newBlock           func(key []byte) (cipher.Block, error)
	keySize, blockSize int
}

func cbcCipher(oid asn1.ObjectIdentifier) (blockCipher, error) {
	switch {
	case oid.Equal(oidAES128CBC):
		return blockCipher{aes.NewCipher, 16, aes.BlockSize}, nil
	case oid.Equal(oidAES192CBC):
		return blockCipher{aes.NewCipher, 24, aes.BlockSize}, nil
	case oid.Equal(oidAES256CBC):
		return blockCipher{aes.NewCipher, 32, aes.BlockSize}, nil
	case oid.Equal(oidDESEDE3CBC):
		return blockCipher{des.NewTripleDESCipher, 24, des.BlockSize}, nil
	}
	return blockCipher{}, fmt.Errorf("cipher %s is neither AES nor triple DES in CBC mode", oid)
}

// keyDerivation returns the function that derives a key of size bytes from a
// passphrase.
func keyDerivation(kdf pkix.AlgorithmIdentifier, size int) (func(passphrase []byte) ([]byte, error), error) {
	switch {
	case kdf.Algorithm.Equal(oidPBKDF2):
		var p pbkdf2Params
		if err := unmarshalAll(kdf.Parameters.FullBytes, &p); err != nil {
			return nil, fmt.Errorf("parameters of PBKDF2: %w", err)
		}
		if p.Iterations < 1 || p.Iterations > maxIterations {
			return nil, fmt.Errorf("PBKDF2 with %d iterations, not 1 to %d", p.Iterations, maxIterations)
		}
		prf, err := pseudoRandom(p.PRF.Algorithm)
		if err != nil {
			return nil, err
		}
		if p.KeyLength != 0 && p.KeyLength != size {
			return nil, fmt.Errorf("PBKDF2 makes a key of %d bytes, the cipher takes %d", p.KeyLength, size)
		}
		return func(passphrase []byte) ([]byte, error) {
			return pbkdf2.Key(prf, string(passphrase), p.Salt, p.Iterations, size)
		}, nil
	case kdf.Algorithm.Equal(oidScrypt):
		var p scryptParams
		if err := unmarshalAll(kdf.Parameters.FullBytes, &p); err != nil {
			return nil, fmt.Errorf("parameters of scrypt: %w", err)
		}
		// It takes 128·r·(N+p) bytes: p counts, as N may be as small as 2.
		if p.N < 2 || p.N&(p.N-1) != 0 || p.R < 1 || p.P < 1 || p.P > maxScryptP || p.N > maxScrypt || p.R > maxScrypt/128/(p.N+p.P) {
			return nil, fmt.Errorf("scrypt with N=%d, r=%d, p=%d is not allowed, or asks for too much", p.N, p.R, p.P)
		}
		if p.KeyLength != 0 && p.KeyLength != size {
			return nil, fmt.Errorf("scrypt makes a key of %d bytes, the cipher takes %d", p.KeyLength, size)
		}
		return func(passphrase []byte) ([]byte, error) {
			return scrypt.Key(passphrase, p.Salt, p.N, p.R, p.P, size)
		}, nil
	}
	return nil, fmt.Errorf("its key is derived by %s, neither PBKDF2 nor scrypt", kdf.Algorithm)
}

func pseudoRandom(oid asn1.ObjectIdentifier) (func() hash.Hash, error) {
	switch {
	case oid == nil, oid.Equal(oidHMACSHA1):
		return sha1.New, nil
	case oid.Equal(oidHMACSHA256):
		return sha256.New, nil
	case oid.Equal(oidHMACSHA384):
		return sha512.New384, nil
	case oid.Equal(oidHMACSHA512):
		return sha512.New, nil
	}
	return nil, fmt.Errorf("PBKDF2 with pseudo-random function %s", oid)
}

// EncodePrivateKey returns a key as the PEM of PKCS #8, encrypted where there is a
// passphrase. Clear it after use.
func EncodePrivateKey(key crypto.Signer, passphrase []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	if len(passphrase) > 0 {
		block.Type = "ENCRYPTED PRIVATE KEY"
		if block.Bytes, err = encryptKey(der, passphrase); err != nil {
			return nil, err
		}
	}
	return pem.EncodeToMemory(block), nil
}

// encryptKey encrypts the PKCS#8 key der with AES-256-CBC under a key derived by
// PBKDF2 with HMAC-SHA-256.
func encryptKey(der, passphrase []byte) ([]byte, error) {
	salt, iv := make([]byte, 16), make([]byte, aes.BlockSize)
	rand.Read(salt)
	rand.Read(iv)
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, iterations, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	n := aes.BlockSize - len(der)%aes.BlockSize
	// All the room at once: a slice that grew would leave the key behind.
	data := make([]byte, len(der)+n)
	for i := range data[copy(data, der):] {
		data[len(der)+i] = byte(n)
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)

	null := asn1.RawValue{Tag: asn1.TagNull}
	kdf, err := asn1.Marshal(pbkdf2Params{Salt: salt, Iterations: iterations, PRF: pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256, Parameters: null}})
	if err != nil {
		return nil, err
	}
	vector, err := asn1.Marshal(iv)
	if err != nil {
		return nil, err
	}
	params, err := asn1.Marshal(pbes2Params{
		KDF:        pkix.AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: asn1.RawValue{FullBytes: kdf}},
		Encryption: pkix.AlgorithmIdentifier{Algorithm: oidAES256CBC, Parameters: asn1.RawValue{FullBytes: vector}},
	})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(encryptedKey{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidPBES2, Parameters: asn1.RawValue{FullBytes: params}},
		Data:      data,
	})
}
