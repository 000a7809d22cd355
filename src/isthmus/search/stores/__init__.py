"""Vector stores behind one small protocol: LanceDB, PostgreSQL with pgvector, Qdrant, named by URL."""
