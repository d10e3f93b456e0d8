"""What a load makes of every layer budget in every precision: throughput, response times, quality."""
