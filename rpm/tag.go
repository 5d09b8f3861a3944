package rpm

// Types of header entries, rpmTagType of rpm's rpmtag.h.
const (
	typeChar        = 1
	typeInt8        = 2
	typeInt16       = 3
	typeInt32       = 4
	typeInt64       = 5
	typeString      = 6
	typeBin         = 7
	typeStringArray = 8
	typeI18NString  = 9
)

// Tags of the signature header, rpmSigTag of rpmtag.h.
const (
	sigRegion              = 62   // HEADERSIGNATURES: the region's trailer
	sigDSA                 = 267  // DSA: OpenPGP over the main header, by any key but RSA
	sigRSA                 = 268  // RSA: OpenPGP over the main header
	sigSHA1                = 269  // SHA1 of the main header, hexadecimal
	sigLongSize            = 270  // LONGSIZE: of main header and payload
	sigLongArchiveSize     = 271  // LONGARCHIVESIZE: of the payload, decompressed
	sigSHA256              = 273  // SHA256 of the main header, hexadecimal
	sigFileSignatures      = 274  // FILESIGNATURES
	sigFileSignatureLength = 275  // FILESIGNATURELENGTH
	sigOpenPGP             = 278  // OPENPGP: over the main header, base64, any number
	sigSHA3                = 279  // SHA3_256 of the main header, hexadecimal
	sigReserved            = 999  // RESERVED: zeros, format 6
	sigSize                = 1000 // SIZE: of main header and payload
	sigPGP                 = 1002 // PGP: OpenPGP over main header and payload, RSA
	sigMD5                 = 1004 // MD5 of main header and payload
	sigGPG                 = 1005 // GPG: OpenPGP over main header and payload, not RSA
	sigPayloadSize         = 1007 // PAYLOADSIZE: of the payload, decompressed
	sigReservedSpace       = 1008 // RESERVEDSPACE: zeros, format 4
)

// Tags of the main header, rpmTag of rpmtag.h.
const (
	tagRegion              = 63 // HEADERIMMUTABLE: the region's trailer
	tagName                = 1000
	tagVersion             = 1001
	tagRelease             = 1002
	tagEpoch               = 1003
	tagSize                = 1009 // of the installed files
	tagArch                = 1022
	tagOldFilenames        = 1027 // whole paths, before rpm 4.0
	tagFileSizes           = 1028
	tagFileModes           = 1030
	tagFileDigests         = 1035
	tagFileFlags           = 1037
	tagSourceRPM           = 1044 // the name of the source package, only in binary ones
	tagFileDevices         = 1095
	tagFileInodes          = 1096
	tagSourcePackage       = 1106
	tagDirIndexes          = 1116
	tagBaseNames           = 1117
	tagDirNames            = 1118
	tagPayloadFormat       = 1124
	tagPayloadCompressor   = 1125
	tagFileColors          = 1140 // bits: 1 is a 32-bit ELF file, 2 a 64-bit one
	tagFileClass           = 1141 // indexes of CLASSDICT
	tagClassDict           = 1142 // what file(1) said
	tagLongFileSizes       = 5008
	tagLongSize            = 5009
	tagFileDigestAlgo      = 5011
	tagFileSignatures      = 5090 // where rpm 4.13 and 4.14 put what is sigFileSignatures now
	tagFileSignatureLength = 5091
	tagPayloadSHA256       = 5092 // of the payload as it is; PAYLOADDIGEST in format 4
	tagPayloadDigestAlgo   = 5093 // of PAYLOADDIGEST and PAYLOADDIGESTALT
	tagPayloadSHA256Alt    = 5097 // of the payload, decompressed
	tagPayloadSize         = 5112
	tagPayloadSizeAlt      = 5113
	tagRPMFormat           = 5114
	tagPayloadSHA512       = 5121
	tagPayloadSHA512Alt    = 5122
	tagPayloadSHA3         = 5123
	tagPayloadSHA3Alt      = 5124
)

// Bits of FILEFLAGS, rpmfileAttrs of rpm's rpmfiles.h.
const (
	fileConfig    = 1 << 0
	fileMissingOK = 1 << 3
	fileGhost     = 1 << 6
)

// Bits of a file's mode, as in stat(2).
const (
	modeType    = 0o170000
	modeRegular = 0o100000
	modeLink    = 0o120000
)
