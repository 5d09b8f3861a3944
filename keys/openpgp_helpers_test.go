package keys

import "time"

var testTime = time.Date(2023, 5, 6, 7, 8, 9, 0, time.UTC)
