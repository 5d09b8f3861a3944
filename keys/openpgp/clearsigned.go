package openpgp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	pgp "github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// UnwrapClearSigned returns the text inside a clear-signed one, without verifying
// the signature, and whether text was clear-signed at all; one that was not is
// returned as it is. Text before or after what is signed is an error: a reader
// could take it for a part.
func UnwrapClearSigned(text []byte) (inner []byte, signed bool, err error) {
	defer recoverTo(&err)
	if !bytes.Contains(text, []byte(clearSignedStart)) {
		return text, false, nil
	}
	block, err := clearSignedBlock(text)
	if err != nil {
		return nil, false, err
	}
	return clearText(block), true, nil
}

func clearText(block *clearsign.Block) []byte {
	// The line end before the signature does not belong to what is signed, but
	// does to the file that was signed.
	return append(bytes.Clone(block.Plaintext), '\n')
}

func clearSignedBlock(text []byte) (*clearsign.Block, error) {
	text = bytes.TrimLeft(text, " \t\r\n")
	if !bytes.HasPrefix(text, []byte(clearSignedStart)) {
		return nil, errors.New("there is text before the clear-signed message")
	}
	if len(text) > maxKeyring {
		return nil, fmt.Errorf("a clear-signed message of %d bytes is too large", len(text))
	}
	block, rest := clearsign.Decode(text)
	if block == nil {
		return nil, errors.New("malformed clear-signed message")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("there is text after the clear-signed message")
	}
	return block, nil
}

func (k *fileKey) clearSign(_ context.Context, text []byte) (_ []byte, err error) {
	defer recoverTo(&err)
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, k.private, k.config)
	if err != nil {
		return nil, k.failed(err)
	}
	// The line end before the signature is written by Close.
	if _, err := w.Write(bytes.TrimSuffix(text, []byte("\n"))); err != nil {
		return nil, k.failed(err)
	}
	if err := w.Close(); err != nil {
		return nil, k.failed(err)
	}
	b.WriteByte('\n')
	signed, err := withChecksum(b.Bytes())
	if err != nil {
		return nil, k.failed(err)
	}
	if _, _, err := k.own.VerifyClearSigned(signed); err != nil {
		return nil, k.failed(err)
	}
	return signed, nil
}

// withChecksum armors the signature of a clear-signed text anew. The library leaves
// the checksum out, and without it gpg 2.2 takes the end line for data when the
// signature is a multiple of three bytes long.
func withChecksum(signed []byte) ([]byte, error) {
	block, err := clearSignedBlock(signed)
	if err != nil {
		return nil, err
	}
	sig, err := io.ReadAll(block.ArmoredSignature.Body)
	if err != nil {
		return nil, err
	}
	// A line of the text that looks like it has "- " in front.
	start := bytes.Index(signed, append([]byte{'\n'}, "-----BEGIN PGP SIGNATURE"...)) + 1
	b := bytes.NewBuffer(signed[:start:start])
	w, err := armor.EncodeWithChecksumOption(b, pgp.SignatureType, nil, true)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(sig); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
