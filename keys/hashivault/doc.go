// Package hashivault signs with the transit engine of HashiCorp Vault and of OpenBao,
// over their HTTP API. Start with [Open]. docs/services.md tells users about it.
package hashivault
