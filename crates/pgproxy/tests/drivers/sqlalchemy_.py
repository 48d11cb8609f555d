"""SQLAlchemy 2 with its pool, over psycopg 3 and over asyncpg."""

import asyncio
import sys

from sqlalchemy import ForeignKey, create_engine, exc, func, inspect, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload
from sqlalchemy.pool import NullPool

from common import run, url

psycopg_url = url.replace("postgres://", "postgresql+psycopg://")
asyncpg_url = url.replace("postgres://", "postgresql+asyncpg://")


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


def mapped_objects():
    engine = create_engine(psycopg_url, pool_size=5, pool_pre_ping=True)
    Base.metadata.create_all(engine)
    assert set(inspect(engine).get_table_names()) >= {"author", "book"}
    with Session(engine) as session:
        session.add_all(Author(name=f"author {n}", books=[Book(title=f"book {n}.{m}") for m in range(5)]) for n in range(50))
        session.commit()
    with Session(engine) as session:
        authors = session.scalars(select(Author).options(selectinload(Author.books)).order_by(Author.id)).all()
        assert [len(author.books) for author in authors] == [5] * 50
        with session.begin_nested():
            authors[0].name = "another"
        try:
            with session.begin_nested():
                session.add(Author(name="another"))
        except exc.IntegrityError:
            pass
        session.commit()
        assert session.scalar(select(Author.name).where(Author.id == authors[0].id)) == "another"
        locked = session.scalars(select(Book).where(Book.author_id == authors[1].id).with_for_update(skip_locked=True)).all()
        assert len(locked) == 5
        session.rollback()
    with engine.connect() as connection:
        streamed = connection.execution_options(yield_per=100).execute(text("select n from generate_series(1, 1000) n"))
        assert sum(row.n for row in streamed) == 500_500
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum book"))
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        assert connection.scalar(text("show transaction_isolation")) == "serializable"
    with engine.connect() as connection:
        assert connection.scalar(text("show transaction_isolation")) == "read committed"
    Base.metadata.drop_all(engine)
    engine.dispose()


def one_that_is_told_to_keep_nothing():
    engine = create_engine(psycopg_url, poolclass=NullPool)
    for n in range(10):
        with engine.connect() as connection:
            assert connection.scalar(select(func.abs(-n))) == n


def asynchronous():
    async def all_of_it():
        engine = create_async_engine(asyncpg_url, pool_size=5)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        sessions = async_sessionmaker(engine)

        async def add(n):
            async with sessions() as session, session.begin():
                session.add(Author(name=f"author {n}"))

        await asyncio.gather(*(add(n) for n in range(50)))
        async with sessions() as session:
            assert await session.scalar(select(func.count()).select_from(Author)) == 50
        async with engine.connect() as connection:
            streamed = await connection.stream(select(Author.name).order_by(Author.id))
            assert len([row async for row in streamed]) == 50
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
        await engine.dispose()

    asyncio.run(all_of_it())


def write(acknowledge):
    engine = create_engine(psycopg_url, isolation_level="AUTOCOMMIT")

    def one(n):
        with engine.connect() as connection:
            connection.execute(text("insert into written values (:n)"), {"n": n})

    while acknowledge(one):
        pass


run(sys.argv, [mapped_objects, one_that_is_told_to_keep_nothing, asynchronous], write)
