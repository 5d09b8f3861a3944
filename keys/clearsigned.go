package keys

import (
	"bytes"
	"errors"
	"fmt"

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
