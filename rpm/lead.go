package rpm

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// magic is what every .rpm begins with.
const magic = "\xed\xab\xee\xdb"

// The lead is struct rpmlead of rpm's lib/rpmlead.cc, all numbers big endian:
//
//	 0  magic, 4 bytes
//	 4  major version: 3, or 4 in format 6; rpm takes no notice of it beyond that
//	 5  minor version
//	 6  type, 2 bytes: 0 binary, 1 source
//	 8  architecture, 2 bytes
//	10  name, 66 bytes
//	76  operating system, 2 bytes
//	78  signature type, 2 bytes: 5, a signature header follows
//	80  16 bytes reserved
const leadSize = 96

const (
	leadSource          = 1
	leadHeaderSignature = 5
)

// checkLead reports what is wrong with a lead, and whether it is a source
// package's.
func checkLead(lead []byte) (source bool, err error) {
	if !bytes.HasPrefix(lead, []byte(magic)) {
		return false, fmt.Errorf("offset 0: not an RPM, it begins with %x", lead[:min(len(lead), 4)])
	}
	if len(lead) < leadSize {
		return false, fmt.Errorf("offset 0: the lead of %d bytes is cut off after %d", leadSize, len(lead))
	}
	if major := lead[4]; major != 3 && major != 4 {
		return false, fmt.Errorf("offset 4: packages of version %d are not supported", major)
	}
	if t := binary.BigEndian.Uint16(lead[78:]); t != leadHeaderSignature {
		return false, fmt.Errorf("offset 78: signatures of type %d are not supported, only a signature header (5)", t)
	}
	return binary.BigEndian.Uint16(lead[6:]) == leadSource, nil
}
